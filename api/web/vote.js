// A voter's page: pairs of clips side by side, left, right or no difference. It knows nothing of methods. `invited` is
// the voter whose own page this is.
import { Problem, announce, api, el, fill, post, problemBox, setText } from "./dom.js";

const KEYS = { ArrowLeft: "left", ArrowRight: "right", ArrowDown: "tie" };
const LABELS = { left: "← Left", tie: "↓ No difference", right: "Right →" };

export function voteView(main, id, invited) {
  const url = `/studies/${encodeURIComponent(id)}`;
  const memory = `dpdy-voter-${id}`; // so that a voter goes on after a reload
  let study = null;
  let ballot = null;
  let sending = false;
  let stopped = false;

  const question = el("h1", { tabindex: -1 }, "Study");
  const place = el("p", { class: "facts" });
  const overall = el("progress", { max: 1, value: 0, "aria-label": "pairs judged" });
  const videos = ["left", "right"].map(() => el("video", { playsinline: true, preload: "auto" }));
  for (const video of videos) {
    video.muted = true;
    video.addEventListener("loadeddata", begin);
    video.addEventListener("ended", again);
    video.addEventListener("error", broken);
    for (const kind of ["play", "pause"]) video.addEventListener(kind, () => setText(pause, playing() ? "Pause" : "Play"));
  }
  const sides = ["Left", "Right"].map((name, index) => {
    videos[index].setAttribute("aria-label", `${name} clip`);
    return el("figure", {}, videos[index], el("figcaption", {}, name));
  });
  const pause = el("button", { type: "button", class: "quiet", onclick: toggle }, "Play");
  const choices = el("div", { class: "choices", role: "group" });
  const hint = el("p", { class: "hint" });
  const trouble = el("div", {});
  const stage = el("div", { class: "ballot" });
  fill(main, stage);
  document.addEventListener("keydown", onKey);

  async function open() {
    study = await api(url);
    if (stopped) return;
    document.title = study.name;
    if (study.state === "closed") return end("This study is over", "It takes no more votes.");
    const known = recall();
    if (!invited && known) {
      try {
        return show(await join());
      } catch (error) {
        if (error.status !== 422) throw error;
        forget();
      }
    }
    introduce();
  }

  function join() {
    const voter = invited || recall();
    return voter ? api(`${url}/voters/${encodeURIComponent(voter)}`) : post(`${url}/voters`);
  }

  function introduce() {
    setText(question, study.name);
    fill(stage,
      question,
      el("p", { class: "lead" }, "You see two clips side by side, again and again. Each time, say:"),
      el("blockquote", {}, study.question),
      el("p", {}, study.ties ? "If you see no difference, say so. There is no wrong answer." : "There is no wrong answer: go by your first impression."),
      trouble,
      el("p", { class: "actions" }, el("button", { type: "button", class: "primary", onclick: start }, "Start")));
  }

  async function start(event) {
    event.target.disabled = true;
    try {
      const joined = await join();
      if (!invited) remember(joined.voter);
      show(joined);
    } catch (error) {
      event.target.disabled = false;
      fail(error);
    }
  }

  function show(next) {
    if (stopped) return;
    const first = !ballot?.pair;
    ballot = next;
    if (!next.pair) return end("Thank you", `You judged ${next.total} pairs. That was all.`);
    if (first) lay();
    fill(trouble);
    setText(place, `Pair ${next.pair.number} of ${next.total}`);
    overall.value = next.done / next.total;
    announce(`Pair ${next.pair.number} of ${next.total}`);
    videos[0].src = next.pair.left;
    videos[1].src = next.pair.right;
    allow();
    if (first) question.focus({ preventScroll: true });
  }

  function lay() {
    setText(question, study.question);
    choices.setAttribute("aria-label", study.question);
    const offered = study.ties ? ["left", "tie", "right"] : ["left", "right"];
    fill(choices, ...offered.map((choice) =>
      el("button", { type: "button", "aria-keyshortcuts": shortcut(choice), onclick: () => vote(choice) }, LABELS[choice])));
    setText(hint, `Keys: ← left, → right${study.ties ? ", ↓ no difference" : ""}; the space bar stops and plays the clips.`);
    fill(stage, question, el("div", { class: "place" }, place, overall), el("div", { class: "sides" }, ...sides), choices, trouble,
      el("div", { class: "line" }, hint, pause));
  }

  function shortcut(choice) {
    return Object.keys(KEYS).find((key) => KEYS[key] === choice);
  }

  function ready() {
    return !sending && Boolean(ballot?.pair) && videos.every((video) => video.readyState >= 2);
  }

  // aria-disabled keeps the focus where it is, which `disabled` would not
  function allow() {
    for (const button of choices.children) button.setAttribute("aria-disabled", String(!ready()));
  }

  async function vote(choice) {
    if (!ready() || (choice === "tie" && !study.ties)) return;
    sending = true;
    allow();
    const judged = ballot.pair.id;
    try {
      const next = await post(`${url}/votes`, { voter: ballot.voter, pair: judged, choice });
      sending = false;
      show(next);
    } catch (error) {
      sending = false;
      await recover(error, judged);
    }
  }

  // the vote may have reached the server though its answer did not reach us
  async function recover(error, judged) {
    try {
      const now = await api(`${url}/voters/${encodeURIComponent(ballot.voter)}`);
      if (now.pair?.id !== judged) return show(now);
    } catch {
      // the first error says it better
    }
    fail(error);
    allow();
  }

  function begin() {
    allow();
    if (!videos.every((video) => video.readyState >= 2)) return;
    if (!matchMedia("(prefers-reduced-motion: reduce)").matches) play();
  }

  function playing() {
    return videos.some((video) => !video.paused);
  }

  function play() {
    for (const video of videos) video.play().catch(() => {}); // may be forbidden: then by the button
  }

  // both start again together, even if one is shorter
  function again() {
    if (!videos.every((video) => video.ended)) return;
    for (const video of videos) video.currentTime = 0;
    play();
  }

  function toggle() {
    if (playing()) videos.forEach((video) => video.pause());
    else if (videos.every((video) => video.ended)) again();
    else play();
  }

  function broken() {
    const reload = el("button", { type: "button", onclick: () => { fill(trouble); videos.forEach((video) => video.load()); } }, "Try again");
    const said = new Problem(0, { title: "A clip cannot be shown", detail: "It did not load, or this browser cannot play it." });
    fill(trouble, problemBox(said), reload);
    allow();
  }

  function onKey(event) {
    if (event.repeat || event.ctrlKey || event.metaKey || event.altKey || event.shiftKey || !ballot?.pair) return;
    if (event.target.closest?.("input, textarea, select, dialog")) return;
    if (event.key === " " && !event.target.closest?.("button, a")) {
      event.preventDefault();
      toggle();
    } else if (KEYS[event.key]) {
      event.preventDefault();
      vote(KEYS[event.key]);
    }
  }

  function end(title, text) {
    for (const video of videos) video.removeAttribute("src");
    setText(question, title);
    fill(stage, question, el("p", { class: "lead" }, text));
    announce(`${title}. ${text}`);
    question.focus({ preventScroll: true });
  }

  function fail(error) {
    fill(trouble, problemBox(error));
  }

  function recall() {
    try {
      return localStorage.getItem(memory);
    } catch {
      return null; // storage may be forbidden: then a reload begins anew
    }
  }

  function remember(voter) {
    try {
      localStorage.setItem(memory, voter);
    } catch {
      // see recall
    }
  }

  function forget() {
    try {
      localStorage.removeItem(memory);
    } catch {
      // see recall
    }
  }

  open().catch((error) => fill(stage, problemBox(error)));
  return () => {
    stopped = true;
    document.removeEventListener("keydown", onKey);
    for (const video of videos) video.removeAttribute("src");
  };
}
