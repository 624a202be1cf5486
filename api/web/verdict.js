// What the check of an upload found: the verdict with its reasons, the measures, the price of each preset.
import { badge, el } from "./dom.js";

const percent = (share) => `${Math.round(100 * share)} %`;

// A card, or null where the report has no verdict.
export function verdictCard(report) {
  if (!report?.verdict) return null;
  return el(
    "section",
    { class: `verdict ${report.verdict.replace(" ", "-")}`, "aria-label": "capture report" },
    el("div", { class: "line" }, badge(report.verdict), el("span", { class: "facts" }, facts(report))),
    report.reasons?.length ? el("ul", { class: "reasons" }, ...report.reasons.map(reason)) : null,
    report.notes?.length ? el("ul", { class: "reasons hint" }, ...report.notes.map((note) => el("li", {}, note))) : null,
    el("dl", { class: "measures" }, ...measures(report).flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)])),
    report.forecast ? price(report.forecast) : null,
  );
}

function reason(item) {
  return el("li", {}, `${item.what[0].toUpperCase()}${item.what.slice(1)}. `, el("span", { class: "remedy" }, `${item.remedy[0].toUpperCase()}${item.remedy.slice(1)}.`));
}

function facts(report) {
  const rate = report.fps ? `${Number(report.fps.toFixed(2))} a second` : null;
  const length = report.duration ? `${report.duration.toFixed(1)} s` : null;
  return [`${report.frames} frames`, `${report.width} × ${report.height}`, rate, length].filter(Boolean).join(" · ");
}

function measures({ sharpness, brightness, motion, cameras }) {
  const rows = [
    ["blurred frames", percent(sharpness.blurred_share)],
    ["brightness jumps", percent(brightness.largest_jump)],
    ["parallax", percent(motion.parallax)],
    ["moving pixels", motion.moving_share === null ? "unknown" : `about ${percent(motion.moving_share)}`],
    ["frames that hang together", percent(motion.linked_share)],
  ];
  if (cameras) rows.push(["frames with a camera", percent(cameras.registered_share)]);
  return rows;
}

function price(forecast) {
  const rows = Object.entries(forecast).filter(([name]) => name !== "note");
  return el(
    "table",
    { class: "price" },
    el("caption", {}, `What a run takes: ${forecast.note}`),
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "preset"), el("th", { scope: "col" }, "CPU"), el("th", { scope: "col" }, "GPU"))),
    el("tbody", {}, ...rows.map(([name, costs]) => el("tr", {}, el("th", { scope: "row" }, name), cost(costs.cpu), cost(costs.cuda)))),
  );
}

function cost({ seconds, memory_gib }) {
  return el("td", {}, el("b", {}, duration(seconds)), ` ${memory_gib} GiB`);
}

function duration(seconds) {
  for (const [unit, size] of [["days", 86400], ["h", 3600], ["min", 60]]) {
    if (seconds >= 1.5 * size) return `${Number((seconds / size).toPrecision(2))} ${unit}`;
  }
  return `${Math.round(seconds)} s`;
}
