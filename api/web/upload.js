// The form of a new job: file, preset, settings; upload with progress, check, submit.
import { Problem, announce, api, bytes, el, fill, post, problemBox, sendFile, setText } from "./dom.js";
import { settingsForm } from "./settings.js";

export function uploadForm(onJob) {
  let file = null;
  let offer = null; // GET /v1/presets
  let settings = null;
  let limit = Infinity;
  let aborter = null;

  const picker = el("input", { type: "file", id: "file", accept: "video/*,.zip,.mkv,.mov,.webm,.mp4", onchange: () => choose(picker.files[0]) });
  const chosen = el("span", { class: "chosen" }, "Drop a video here, or choose one");
  const hint = el("span", { class: "hint" }, "mp4, mov, webm, mkv, or a zip of a capture");
  const drop = el("label", { class: "drop", for: "file" }, picker, chosen, hint);
  const choices = el("div", { class: "presets" });
  const advanced = el("div", {});
  const name = el("input", { id: "name", type: "text", maxlength: 200, autocomplete: "off" });
  const bar = el("progress", { max: 1, value: 0, "aria-label": "upload" });
  const said = el("p", { class: "said" });
  const stop = el("button", { type: "button", class: "quiet", onclick: () => aborter?.abort() }, "Stop");
  const transfer = el("div", { class: "transfer", hidden: true }, bar, el("div", { class: "line" }, said, stop));
  const trouble = el("div", {});
  const start = el("button", { type: "submit", class: "primary", disabled: true }, "Make the scene");
  const form = el(
    "form",
    { onsubmit: submit, novalidate: true },
    drop,
    el("fieldset", {}, el("legend", {}, "Preset"), choices),
    el("details", { class: "advanced" },
      el("summary", {}, "Name and settings"),
      el("div", { class: "field wide" }, el("label", { for: "name" }, "name"), name),
      advanced),
    trouble,
    transfer,
    start,
  );

  for (const kind of ["dragenter", "dragover"]) drop.addEventListener(kind, (event) => hover(event, true));
  for (const kind of ["dragleave", "drop"]) drop.addEventListener(kind, (event) => hover(event, false));
  drop.addEventListener("drop", (event) => {
    const item = event.dataTransfer.items?.[0];
    if (item?.webkitGetAsEntry?.()?.isDirectory) {
      return complain("A folder cannot be dropped here.", "Zip it first, or use dpdy submit FOLDER.");
    }
    choose(event.dataTransfer.files[0]);
  });

  function hover(event, on) {
    event.preventDefault();
    drop.classList.toggle("over", on);
  }

  function complain(title, remedy) {
    fill(trouble, el("div", { class: "problem", role: "alert" }, el("h3", {}, title), el("p", { class: "remedy" }, remedy)));
  }

  function choose(picked) {
    if (!picked) return;
    fill(trouble);
    if (picked.size > limit) {
      file = null;
      start.disabled = true;
      return complain(`${picked.name} has ${bytes(picked.size)}.`, `The server takes files up to ${bytes(limit)}.`);
    }
    file = picked;
    setText(chosen, file.name);
    setText(hint, bytes(file.size));
    drop.classList.add("full");
    name.placeholder = file.name;
    start.disabled = false;
  }

  async function load() {
    try {
      offer = await api("/presets");
      fill(choices, ...offer.items.map(choice));
      pick(offer.items.find((preset) => preset.name === offer.default));
      const info = await api("/info");
      limit = info.limits?.max_upload_bytes ?? Infinity;
    } catch (error) {
      fill(trouble, problemBox(error));
    }
  }

  function choice(preset) {
    const checked = preset.name === offer.default;
    return el(
      "label",
      { class: "choice" },
      el("input", { type: "radio", name: "preset", value: preset.name, checked, onchange: () => pick(preset) }),
      el("strong", {}, preset.name),
      el("span", {}, preset.description),
    );
  }

  function pick(preset) {
    settings = settingsForm(preset.settings, offer.schema);
    fill(advanced, settings.element);
  }

  async function submit(event) {
    event.preventDefault();
    if (!file || aborter) return;
    aborter = new AbortController();
    fill(trouble);
    transfer.hidden = false;
    start.disabled = true;
    try {
      const upload = await ready(await sendFile(file, progress, aborter.signal));
      const body = { upload_id: upload.id, preset: form.elements.preset.value, settings: settings.changes() };
      body.name = name.value.trim() || file.name;
      tell("Starting the job");
      onJob(await post("/jobs", body, { "Idempotency-Key": key() }));
    } catch (error) {
      if (error.name !== "AbortError") fill(trouble, problemBox(error));
    } finally {
      aborter = null;
      transfer.hidden = true;
      start.disabled = false;
    }
  }

  function progress(sent, total) {
    bar.value = total ? sent / total : 0;
    setText(said, `${bytes(sent)} of ${bytes(total)}`);
  }

  function tell(text) {
    bar.removeAttribute("value");
    setText(said, text);
    announce(text);
  }

  async function ready(upload) {
    tell("Checking the capture");
    while (upload.state === "receiving" || upload.state === "checking") {
      await new Promise((resolve) => setTimeout(resolve, 500));
      aborter.signal.throwIfAborted();
      upload = await api(`/uploads/${encodeURIComponent(upload.id)}`);
    }
    if (upload.state === "ready") return upload;
    throw new Problem(415, upload.problem || { title: "The capture was rejected" });
  }

  load();
  return { element: form, close: () => aborter?.abort() };
}

// randomUUID needs a secure context; a plain address in a local network is none
function key() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
