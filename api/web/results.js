// What a finished job made: videos of each camera path side by side, metrics, files.
import { bytes, el, fill } from "./dom.js";

const KINDS = [
  ["", "Colour"],
  ["_depth", "Depth"],
  ["_invented", "Invented"],
];
const PATHS = { input: "Input cameras", stabilised: "Stabilised", "bullet-time": "Bullet time", orbit: "Orbit", test: "Held-out cameras" };
const METRICS = [
  ["psnr", "PSNR", "dB, higher is better", 2],
  ["ssim", "SSIM", "higher is better", 3],
  ["ms_ssim", "MS-SSIM", "higher is better", 3],
  ["lpips", "LPIPS", "lower is better", 3],
];
const REGIONS = [
  ["covisible", "Seen in training"],
  ["moving", "Moving"],
];

export function resultsView(job, artifacts) {
  const files = new Map(artifacts.map((item) => [item.path, item]));
  const paths = [...files.keys()]
    .map((path) => path.match(/^renders\/([^/]+)\.mp4$/)?.[1])
    .filter((name) => name && !/_(depth|invented)$/.test(name))
    .sort((a, b) => order(a) - order(b));
  return el(
    "div",
    { class: "results" },
    paths.length ? player(paths, files) : null,
    job.metrics ? metrics(job.metrics) : null,
    downloads(job, files, artifacts),
  );
}

function order(name) {
  const known = Object.keys(PATHS).indexOf(name);
  return known < 0 ? 100 : known;
}

function player(paths, files) {
  const stage = el("div", { class: "videos" });
  const shown = new Set(["", "_depth", "_invented"]);
  let current = paths[0];

  function render() {
    const tiles = KINDS.filter(([suffix]) => files.has(`renders/${current}${suffix}.mp4`)).map(([suffix, label]) => {
      const item = files.get(`renders/${current}${suffix}.mp4`);
      const video = el("video", { src: item.url, controls: true, loop: true, playsinline: true, preload: "auto", "aria-label": `${label}, ${PATHS[current] || current}` });
      video.muted = true;
      return el("figure", { "data-kind": suffix, hidden: !shown.has(suffix) }, video, el("figcaption", {}, label));
    });
    fill(stage, ...tiles);
    const videos = [...stage.querySelectorAll("video")];
    keepTogether(videos);
    if (!matchMedia("(prefers-reduced-motion: reduce)").matches) videos[0]?.play().catch(() => {}); // may be forbidden: then on click
  }

  const tabs = paths.map((name) =>
    el("label", { class: "tab" },
      el("input", { type: "radio", name: "path", value: name, checked: name === current, onchange: () => { current = name; render(); } }),
      el("span", {}, PATHS[name] || name)));
  const toggles = KINDS.map(([suffix, label]) =>
    el("label", { class: "toggle" },
      el("input", { type: "checkbox", checked: true, onchange: (event) => toggle(suffix, event.target.checked) }), label));

  function toggle(suffix, on) {
    if (on) shown.add(suffix);
    else shown.delete(suffix);
    for (const tile of stage.children) tile.hidden = !shown.has(tile.dataset.kind);
  }

  render();
  return el(
    "section",
    { "aria-labelledby": "views" },
    el("h2", { id: "views" }, "Novel views"),
    el("div", { class: "bar" },
      el("fieldset", { class: "tabs" }, el("legend", { class: "hidden" }, "Camera path"), ...tabs),
      el("fieldset", { class: "toggles" }, el("legend", { class: "hidden" }, "Show"), ...toggles)),
    stage,
    el("p", { class: "hint" }, "White in “Invented” marks what no frame of the video saw: those pixels are made up."),
  );
}

// Play, pause and seek one, and all do. A video that only follows does not lead in turn.
function keepTogether(videos) {
  for (const leader of videos) {
    const others = videos.filter((video) => video !== leader);
    leader.addEventListener("play", () => others.filter((video) => video.paused).forEach((video) => {
      video.currentTime = leader.currentTime;
      video.play().catch(() => {}); // may be forbidden by the browser's settings
    }));
    leader.addEventListener("pause", () => others.filter((video) => !video.paused && !leader.ended).forEach((video) => video.pause()));
    leader.addEventListener("seeked", () => others.filter((video) => Math.abs(video.currentTime - leader.currentTime) > 0.15).forEach((video) => {
      video.currentTime = leader.currentTime;
    }));
  }
}

function metrics(document) {
  const mean = document.mean || {};
  const regions = REGIONS.filter(([key]) => mean[key]);
  const known = METRICS.filter(([key]) => key in mean);
  if (!known.length) return null;
  const head = el("tr", {}, ...["Metric", "All pixels", ...regions.map(([, label]) => label)].map((text) => el("th", { scope: "col" }, text)));
  const rows = known.map(([key, label, meaning, digits]) =>
    el("tr", {},
      el("th", { scope: "row" }, label, el("small", {}, meaning)),
      el("td", {}, number(mean[key], digits)),
      ...regions.map(([region]) => el("td", {}, number(mean[region][key], digits)))));
  const notes = document.notes || [];
  return el(
    "section",
    { "aria-labelledby": "scores" },
    el("h2", { id: "scores" }, "Against held-out frames"),
    el("table", {}, el("thead", {}, head), el("tbody", {}, ...rows)),
    notes.length ? el("ul", { class: "notes" }, ...notes.map((note) => el("li", {}, note))) : null,
  );
}

function number(value, digits) {
  return typeof value === "number" ? value.toFixed(digits) : "–";
}

function downloads(job, files, artifacts) {
  const total = artifacts.reduce((sum, item) => sum + item.size, 0);
  const report = files.get("report.html");
  const list = artifacts.map((item) =>
    el("li", {}, el("a", { href: item.url, download: item.path.split("/").pop() }, item.path), el("span", {}, bytes(item.size))));
  return el(
    "section",
    { "aria-labelledby": "files" },
    el("h2", { id: "files" }, "Files"),
    el("p", { class: "actions" },
      report ? el("a", { class: "button primary", href: report.url, target: "_blank", rel: "noopener" }, "Report") : null,
      el("a", { class: "button", href: `/v1/jobs/${encodeURIComponent(job.id)}/artifacts.zip`, download: true }, `All files, zip (${bytes(total)})`)),
    el("details", {}, el("summary", {}, `${artifacts.length} files`), el("ul", { class: "files" }, ...list)),
  );
}
