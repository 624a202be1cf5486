// Routes: #/ is the form and the list of jobs, #/jobs/ID one job; #/studies, #/studies/ID (to vote, or
// #/studies/ID/voters/VOTER for who was invited), #/studies/ID/results.
import { ago, api, badge, el, fill, problemBox, setText } from "./dom.js";
import { jobView } from "./job.js";
import { loginView } from "./login.js";
import { studiesView } from "./studies.js";
import { resultsPage } from "./study.js";
import { uploadForm } from "./upload.js";
import { voteView } from "./vote.js";

const main = document.getElementById("main");
let close = () => {};
let locked = false; // a key is needed, and none was shown

function home() {
  document.title = "DpDy";
  const list = el("div", { class: "jobs" });
  const more = el("button", { class: "quiet", hidden: true, onclick: () => extend() }, "Older jobs");
  let pages = 1;
  let stopped = false;

  async function load() {
    const items = [];
    let cursor = null;
    for (let page = 0; page < pages; page += 1) {
      const query = cursor ? `?limit=20&cursor=${encodeURIComponent(cursor)}` : "?limit=20";
      const answer = await api(`/jobs${query}`);
      items.push(...answer.items);
      cursor = answer.next_cursor;
      if (!cursor) break;
    }
    more.hidden = !cursor;
    show(items);
  }

  function show(items) {
    const focused = list.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
    if (items.length) fill(list, ...items.map(row));
    else fill(list, el("p", { class: "empty" }, "Nothing yet. The first scene you make appears here."));
    if (focused) list.querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus();
  }

  async function extend() {
    pages += 1;
    await load().catch(fail);
  }

  function fail(error) {
    if (!list.querySelector(".row")) fill(list, problemBox(error));
  }

  async function loop() {
    while (!stopped) {
      if (!document.hidden) await load().catch(fail);
      await new Promise((resolve) => setTimeout(resolve, 2500));
    }
  }

  const form = uploadForm((job) => (location.hash = `#/jobs/${job.id}`));
  fill(
    main,
    el("div", { class: "home" },
      el("section", { class: "make", "aria-labelledby": "make" },
        el("h1", { id: "make" }, "One video in, novel views out"),
        el("p", { class: "lead" }, "Film a moving scene with one moving camera. You get it back from places where no camera stood."),
        form.element),
      el("section", { "aria-labelledby": "jobs" }, el("h2", { id: "jobs" }, "Jobs"), list, more)),
  );
  loop();
  return () => {
    stopped = true;
    form.close();
  };
}

function row(job) {
  const active = ["running", "cancelling"].includes(job.state);
  return el(
    "a",
    { class: "row", href: `#/jobs/${job.id}` },
    el("span", { class: "name" }, job.name || job.id),
    badge(job.state),
    el("span", { class: "meta" }, caption(job)),
    active ? el("progress", { max: 1, value: job.progress || 0, "aria-label": "progress" }) : null,
  );
}

function caption(job) {
  const parts = [job.preset, ago(job.created_at)];
  if (job.state === "running" && job.stage) parts.push(`${job.stage}, ${Math.round((job.progress || 0) * 100)} %`);
  if (job.state === "queued" && job.queue_position) parts.push(`place ${job.queue_position} in the queue`);
  return parts.join("  ·  ");
}

function route() {
  close();
  const [, kind, id, results, voter] = location.hash.match(/^#\/(jobs|studies)(?:\/([^/]+)(?:(\/results)|\/voters\/([^/]+))?)?$/) || [];
  const voting = kind === "studies" && Boolean(id) && !results;
  document.body.classList.toggle("voting", voting); // voters get no way to results
  if (locked && !voting) close = loginView(main, enter);
  else if (voting) close = voteView(main, decodeURIComponent(id), voter && decodeURIComponent(voter));
  else if (kind === "studies") close = id ? resultsPage(main, decodeURIComponent(id)) : studiesView(main);
  else close = kind && id ? jobView(main, decodeURIComponent(id)) : home();
  window.scrollTo(0, 0);
}

async function showServer() {
  const place = document.getElementById("server");
  const leave = document.getElementById("leave");
  try {
    const info = await api("/info");
    locked = info.auth === "on" && !info.tenant;
    setText(place, [info.version && `version ${info.version}`, info.auth === "on" && info.tenant].filter(Boolean).join(" · "));
    leave.hidden = info.auth !== "on" || locked;
  } catch {
    setText(place, "");
  }
}

async function enter() {
  await showServer();
  route();
}

async function signOut() {
  close();
  close = () => {};
  await api("/session", { method: "DELETE" }).catch(() => {});
  enter();
}

window.addEventListener("hashchange", () => {
  if (location.hash === "#main") return main.focus();
  route();
  main.focus({ preventScroll: true });
});
window.addEventListener("signed-out", () => {
  if (!locked) {
    locked = true;
    route();
  }
});
document.getElementById("leave").addEventListener("click", signOut);
enter();
