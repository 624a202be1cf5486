// The form of a new job: a chosen file is uploaded and judged at once; then preset, settings, submit.
import { Problem, announce, api, bytes, el, fill, post, problemBox, setText } from "./dom.js";
import { settingsForm } from "./settings.js";
import { sendFile } from "./transfer.js";
import { verdictCard } from "./verdict.js";

export function uploadForm(onJob) {
  let file = null;
  let offer = null; // GET /v1/presets
  let settings = null;
  let limit = Infinity;
  let aborter = null; // of the upload under way, or the last
  let checked = null; // promise of the upload, or of null where it cannot be used
  let busy = false;

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
  const verdict = el("div", {});
  const start = el("button", { type: "submit", class: "primary", disabled: true }, "Make the scene");
  const form = el(
    "form",
    { onsubmit: submit, novalidate: true },
    drop,
    transfer,
    verdict,
    el("fieldset", {}, el("legend", {}, "Preset"), choices),
    el("details", { class: "advanced" },
      el("summary", {}, "Name and settings"),
      el("div", { class: "field wide" }, el("label", { for: "name" }, "name"), name),
      advanced),
    trouble,
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
      file = checked = null;
      aborter?.abort();
      fill(verdict);
      start.disabled = true;
      return complain(`${picked.name} has ${bytes(picked.size)}.`, `The server takes files up to ${bytes(limit)}.`);
    }
    file = picked;
    setText(chosen, file.name);
    setText(hint, bytes(file.size));
    drop.classList.add("full");
    name.placeholder = file.name;
    start.disabled = busy;
    setText(start, "Make the scene");
    check();
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

  // Uploads the chosen file and has it checked; the upload if it can be used, else null and a box that says why.
  function check() {
    aborter?.abort();
    const mine = new AbortController();
    aborter = mine;
    fill(trouble);
    fill(verdict);
    transfer.hidden = false;
    checked = sendFile(file, progress, mine.signal)
      .then((upload) => ready(upload, mine.signal))
      .then((upload) => {
        fill(verdict, verdictCard(upload.report));
        announce(`The capture was checked: ${upload.report?.verdict ?? "it can be used"}`);
        return upload;
      })
      .catch((error) => {
        if (aborter === mine) checked = null;
        if (error.name !== "AbortError") fill(trouble, problemBox(error));
        return null;
      })
      .finally(() => {
        if (aborter === mine) transfer.hidden = true;
      });
  }

  async function submit(event) {
    event.preventDefault();
    if (!file || busy) return;
    busy = true;
    start.disabled = true;
    try {
      const told = verdict.hasChildNodes();
      if (!checked) check();
      const upload = await checked;
      if (!upload) return;
      if (!told && (upload.report?.verdict ?? "good") !== "good") {
        setText(start, "Make the scene anyway");
        return;
      }
      const body = { upload_id: upload.id, preset: form.elements.preset.value, settings: settings.changes() };
      body.name = name.value.trim() || file.name;
      onJob(await post("/jobs", body, { "Idempotency-Key": key() }));
    } catch (error) {
      fill(trouble, problemBox(error));
    } finally {
      busy = false;
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

  async function ready(upload, signal) {
    tell("Checking the capture");
    while (upload.state === "receiving" || upload.state === "checking") {
      await new Promise((resolve) => setTimeout(resolve, 500));
      signal.throwIfAborted();
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
