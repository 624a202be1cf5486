// Elements and requests. Text reaches the page as text nodes only, so nothing a user wrote can become markup.

export function el(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export function fill(element, ...children) {
  element.replaceChildren(...children.filter((child) => child !== null && child !== undefined && child !== false));
}

export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function announce(text) {
  setText(document.getElementById("announcer"), text);
}

export class Problem extends Error {
  constructor(status, document) {
    super(document.detail || document.title || `The server answered ${status}`);
    this.status = status;
    this.title = document.title || "That did not work";
    this.remedy = document.remedy || "";
    this.errors = document.errors || [];
  }
}

// A key that ended meanwhile shows itself at any request: the page then asks for another one.
export function refused(status, document) {
  if (status === 401) window.dispatchEvent(new Event("signed-out"));
  return new Problem(status, document);
}

// A JSON answer. Throws Problem if the server refuses, TypeError if it cannot be reached.
export async function api(path, options = {}) {
  const response = await fetch(`/v1${path}`, { headers: { Accept: "application/json" }, ...options });
  const document = response.status === 204 ? {} : await response.json().catch(() => ({}));
  if (!response.ok) throw refused(response.status, document);
  return document;
}

export function post(path, body, headers = {}) {
  return api(path, {
    method: "POST",
    headers: { "Content-Type": "application/json", ...headers },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
}

export function problemBox(error) {
  const offline = !(error instanceof Problem);
  const title = offline ? "The server cannot be reached" : error.title;
  const detail = offline ? "Check the connection and try again. Running jobs are not affected." : error.message;
  const fields = offline ? [] : error.errors.map((item) => el("li", {}, `${item.field}: ${item.detail}`));
  return el(
    "div",
    { class: "problem", role: "alert" },
    el("h3", {}, title),
    fields.length ? el("ul", {}, ...fields) : el("p", {}, detail),
    error.remedy ? el("p", { class: "remedy" }, error.remedy) : null,
  );
}

export function bytes(count) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let power = 0;
  while (count >= 1000 && power < units.length - 1) {
    count /= 1000;
    power += 1;
  }
  return `${power ? count.toFixed(1) : count} ${units[power]}`;
}

export function clock(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const tail = String(rest).padStart(2, "0");
  return hours ? `${hours}:${String(minutes).padStart(2, "0")}:${tail}` : `${minutes}:${tail}`;
}

export function ago(time) {
  const seconds = (Date.now() - new Date(time)) / 1000;
  const format = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
  if (seconds < 60) return "just now";
  if (seconds < 3600) return format.format(-Math.floor(seconds / 60), "minute");
  if (seconds < 86400) return format.format(-Math.floor(seconds / 3600), "hour");
  return format.format(-Math.floor(seconds / 86400), "day");
}

export function badge(state) {
  return el("span", { class: `badge ${state}` }, state);
}
