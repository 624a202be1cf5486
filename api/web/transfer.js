// A file sent by tus 1.0: what arrived stays there over broken connections, and over a reload of the page.
import { Problem, api, refused } from "./dom.js";

const TUS = { "Tus-Resumable": "1.0.0" };
const CHUNK = 64 * 1024 * 1024; // behind a proxy that holds requests back, a break loses one
const PAUSES = [0, 1, 2, 4, 8, 15, 15, 15, 15, 15, 15, 15]; // seconds between tries of which none got further

// The upload as the server knows it. Throws Problem if the server refuses, TypeError if it cannot be reached.
export async function sendFile(file, onProgress, signal) {
  let url = remembered(file);
  let offset = url ? await whereTo(url, signal).catch(() => null) : null;
  if (offset === null) {
    url = await begin(file, signal);
    offset = 0;
  }
  remember(file, url);
  onProgress(offset, file.size);
  for (let tries = 0; offset < file.size; ) {
    const before = offset;
    try {
      offset = await sendChunk(url, file, offset, onProgress, signal);
    } catch (error) {
      if (error.name === "AbortError" || tries === PAUSES.length || !mayPass(error)) throw error;
      await pause(PAUSES[tries], signal);
      offset = (await whereTo(url, signal).catch((reason) => (mayPass(reason) ? null : Promise.reject(reason)))) ?? offset;
    }
    tries = offset > before ? 0 : tries + 1;
  }
  forget(file);
  return api(`/uploads/${url.split("/").pop()}`);
}

async function begin(file, signal) {
  const name = btoa(String.fromCharCode(...new TextEncoder().encode(file.name)));
  const headers = { ...TUS, "Upload-Length": String(file.size), "Upload-Metadata": `filename ${name}` };
  const response = await fetch("/v1/uploads/tus", { method: "POST", headers, signal });
  if (!response.ok) throw refused(response.status, await response.json().catch(() => ({})));
  return response.headers.get("Location");
}

async function whereTo(url, signal) {
  const response = await fetch(url, { method: "HEAD", headers: TUS, signal });
  if (!response.ok) throw refused(response.status, { title: "The upload is gone", remedy: "Choose the file again." });
  return Number(response.headers.get("Upload-Offset"));
}

// Returns the offset after it. XMLHttpRequest, because fetch cannot report progress.
function sendChunk(url, file, offset, onProgress, signal) {
  return new Promise((resolve, reject) => {
    signal.throwIfAborted();
    const request = new XMLHttpRequest();
    request.open("PATCH", url);
    const headers = { ...TUS, "Upload-Offset": String(offset), "Content-Type": "application/offset+octet-stream" };
    for (const [name, value] of Object.entries(headers)) request.setRequestHeader(name, value);
    request.responseType = "json";
    request.upload.addEventListener("progress", (event) => onProgress(offset + event.loaded, file.size));
    request.addEventListener("load", () => {
      if (request.status === 204) resolve(Number(request.getResponseHeader("Upload-Offset")));
      else reject(refused(request.status, request.response || {}));
    });
    request.addEventListener("error", () => reject(new TypeError("The connection to the server broke.")));
    request.addEventListener("abort", () => reject(new DOMException("stopped", "AbortError")));
    signal.addEventListener("abort", () => request.abort(), { once: true });
    request.send(file.slice(offset, offset + CHUNK));
  });
}

// Another offset, a lock that a dead connection still holds, too many requests, a server that starts anew
function mayPass(error) {
  return !(error instanceof Problem) || [408, 409, 423, 429].includes(error.status) || error.status >= 500;
}

function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(new DOMException("stopped", "AbortError"));
    };
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", stop);
      resolve();
    }, 1000 * seconds);
    signal.addEventListener("abort", stop, { once: true });
  });
}

// Where a chosen file goes on after a reload; storage that is closed to the page only means that it begins anew
const key = (file) => `upload:${file.name}:${file.size}:${file.lastModified}`;

function remembered(file) {
  try {
    return localStorage.getItem(key(file));
  } catch {
    return null;
  }
}

function remember(file, url) {
  try {
    localStorage.setItem(key(file), url);
  } catch {
    // as above
  }
}

function forget(file) {
  try {
    localStorage.removeItem(key(file));
  } catch {
    // as above
  }
}
