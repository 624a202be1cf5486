// One job: stages, preview, log and warnings while it runs; videos, metrics and files when it is done.
import { announce, api, badge, clock, el, fill, post, problemBox, setText } from "./dom.js";
import { follow } from "./follow.js";
import { resultsView } from "./results.js";

const TERMINAL = new Set(["succeeded", "failed", "cancelled", "expired"]);
const NAMES = {
  ingest: "Ingest",
  masks: "Motion masks",
  cameras: "Cameras",
  depth: "Depth",
  prior: "Diffusion prior",
  scene: "Scene",
  render: "Render",
  evaluate: "Evaluate",
};

export function jobView(main, id) {
  const url = `/jobs/${encodeURIComponent(id)}`;
  const title = el("h1", {}, "Job");
  const state = el("span", {});
  const facts = el("p", { class: "facts" });
  const actions = el("div", { class: "actions" });
  const overall = el("progress", { max: 1, value: 0, "aria-label": "whole job" });
  const stages = el("ol", { class: "stages" });
  const notes = el("div", {});
  const trouble = el("div", {});
  const picture = el("img", { alt: "The scene as it stands, seen from a training camera" });
  const preview = el("figure", { class: "preview", hidden: true }, picture, el("figcaption", {}));
  const results = el("div", {});
  const log = el("pre", { class: "log", tabindex: 0, "aria-label": "log" });
  const dialog = el("dialog", { "aria-labelledby": "sure" });
  fill(
    main,
    el("article", { class: "job" },
      el("p", { class: "crumb" }, el("a", { href: "#/" }, "All jobs")),
      el("div", { class: "heading" }, title, state),
      facts, actions, trouble, results,
      el("div", { class: "work" },
        el("section", { "aria-label": "Progress" }, overall, stages, notes),
        el("section", { class: "side", "aria-label": "Preview and log" },
          preview,
          el("details", { open: true }, el("summary", {}, "Log"), log))),
      dialog),
  );

  let job = null;
  let cursor = null;
  let finished = null; // the attempt whose results are shown
  let previewAsked = 0;
  const rows = new Map();

  async function refresh() {
    const now = await api(url);
    const changed = !job || job.state !== now.state || job.stage !== now.stage;
    job = now;
    show(changed);
    await readLog();
    if (job.state === "running" && Date.now() - previewAsked > 1000) {
      previewAsked = Date.now();
      await findPreview();
    }
    if (job.state === "succeeded" && finished !== job.attempt) {
      finished = job.attempt;
      preview.hidden = true;
      fill(results, resultsView(job, (await api(`${url}/artifacts`)).items));
    }
    return TERMINAL.has(job.state) || Boolean(job.deleted_at);
  }

  function show(changed) {
    setText(title, job.name || job.id);
    document.title = `${job.name || job.id} · DpDy`;
    fill(state, badge(job.deleted_at ? "deleted" : job.state));
    setText(facts, factsOf(job));
    overall.value = job.progress || 0;
    overall.hidden = TERMINAL.has(job.state);
    for (const stage of job.stages) stageRow(stage);
    fill(notes, job.warnings.length ? el("ul", { class: "notes" }, ...job.warnings.map((text) => el("li", {}, text))) : null);
    if (!changed) return;
    fill(actions, ...buttons());
    fill(trouble, job.problem && TERMINAL.has(job.state) ? failure() : null);
    if (job.state !== "succeeded") fill(results);
    if (job.state !== "succeeded") finished = null;
    announce(job.stage && job.state === "running" ? `${NAMES[job.stage]} is running` : `The job is ${job.state}`);
  }

  function stageRow(stage) {
    if (!rows.has(stage.name)) {
      const row = {
        time: el("span", { class: "time" }),
        bar: el("progress", { max: 1, value: 0, "aria-label": NAMES[stage.name] }),
        steps: el("span", { class: "steps" }),
      };
      row.element = el("li", {}, el("span", { class: "dot" }), el("span", { class: "name" }, NAMES[stage.name] || stage.name), row.steps, row.time, row.bar);
      rows.set(stage.name, row);
      stages.append(row.element);
    }
    const row = rows.get(stage.name);
    row.element.className = stage.state;
    row.bar.value = stage.progress || 0;
    row.bar.hidden = stage.state !== "running";
    setText(row.steps, stage.state === "running" && stage.total ? `${stage.step} / ${stage.total}` : wordFor(stage.state));
    setText(row.time, duration(stage));
  }

  function failure() {
    const { title: head, detail, remedy } = job.problem;
    const kept = job.stages.filter((stage) => stage.state === "done").map((stage) => NAMES[stage.name]);
    return el(
      "div",
      { class: "problem", role: "alert" },
      el("h2", {}, head || "The job failed"),
      el("p", {}, detail || ""),
      remedy ? el("p", { class: "remedy" }, remedy) : null,
      kept.length ? el("p", { class: "kept" }, `A retry keeps what is done: ${kept.join(", ")}.`) : null,
    );
  }

  function buttons() {
    const offered = [];
    if (["queued", "running"].includes(job.state)) offered.push(button("Cancel", () => post(`${url}/cancel`)));
    if (["failed", "cancelled", "expired"].includes(job.state)) {
      offered.push(button("Retry", () => post(`${url}/retry`), "primary"));
    }
    if (!job.deleted_at) offered.push(el("button", { class: "danger", onclick: askDelete }, "Delete"));
    return offered;
  }

  function button(label, act, kind = "") {
    return el("button", { class: kind, onclick: (event) => perform(event.target, act) }, label);
  }

  async function perform(target, act) {
    target.disabled = true;
    try {
      await act();
      stop();
      stop = follow(`/v1${url}/events`, refresh, offline);
    } catch (error) {
      fill(trouble, problemBox(error));
      target.disabled = false;
    }
  }

  function askDelete() {
    const remove = el("button", { class: "danger", onclick: confirmed }, "Delete for good");
    const keep = el("button", { onclick: () => dialog.close() }, "Keep it");
    fill(dialog,
      el("h2", { id: "sure" }, "Delete this job?"),
      el("p", {}, "The capture, the finetuned weights and all results are removed. This cannot be undone."),
      el("div", { class: "actions" }, remove, keep));
    dialog.showModal();
    keep.focus();
  }

  async function confirmed() {
    dialog.close();
    try {
      await api(url, { method: "DELETE" });
      location.hash = "#/";
    } catch (error) {
      fill(trouble, problemBox(error));
    }
  }

  async function readLog() {
    for (let page = 0; page < 20; page += 1) {
      const { items, next_cursor: next } = await api(`${url}/logs${cursor ? `?after=${encodeURIComponent(cursor)}` : ""}`);
      cursor = next;
      if (!items.length) return;
      const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40; // a reader who scrolled up stays there
      log.append(items.map((line) => `${line.text}\n`).join(""));
      if (atEnd) log.scrollTop = log.scrollHeight;
    }
  }

  async function findPreview() {
    const { items } = await api(`${url}/artifacts`);
    const pictures = items.filter((item) => /^renders\/previews\/.+\.jpg$/.test(item.path));
    if (!pictures.length) return;
    const newest = pictures.reduce((best, item) => (item.created_at + item.path > best.created_at + best.path ? item : best));
    const source = `${newest.url}?sha=${newest.sha256.slice(0, 8)}`;
    if (picture.getAttribute("src") !== source) picture.src = source;
    setText(preview.querySelector("figcaption"), `The scene so far${stepOf(newest.path)}`);
    preview.hidden = false;
  }

  function offline(error) {
    if (!job || error.status) fill(trouble, problemBox(error));
    else setText(facts, "The connection to the server broke. The job goes on; trying again.");
  }

  let stop = follow(`/v1${url}/events`, refresh, offline);
  return () => stop();
}

function factsOf(job) {
  const parts = [job.kind === "render" ? "another view" : job.preset];
  if (job.attempt > 1) parts.push(`attempt ${job.attempt}`);
  if (job.state === "queued") parts.push(job.queue_position ? `place ${job.queue_position} in the queue` : "waiting for a worker");
  if (job.state === "running") parts.push(`${Math.round(job.progress * 100)} %`);
  if (job.state === "running" && job.eta_seconds !== null) parts.push(`about ${clock(job.eta_seconds)} left`);
  if (job.state === "cancelling") parts.push("stopping at the next checkpoint");
  if (job.started_at && job.finished_at) parts.push(`took ${clock((new Date(job.finished_at) - new Date(job.started_at)) / 1000)}`);
  return parts.join("  ·  ");
}

function stepOf(path) {
  const digits = path.match(/(\d+)\.jpg$/);
  return digits ? `, step ${Number(digits[1])}` : "";
}

function wordFor(state) {
  return { failed: "failed", cancelled: "stopped" }[state] || "";
}

function duration(stage) {
  if (!stage.started_at) return "";
  const end = stage.finished_at ? new Date(stage.finished_at) : new Date();
  if (!stage.finished_at && stage.state !== "running") return "";
  return clock((end - new Date(stage.started_at)) / 1000);
}
