// Results of one study: scores with their intervals, pairs of methods, agreement, voters. Not for voters.
import { api, badge, el, fill, post, problemBox, setText } from "./dom.js";

const POLL = 5000;

export function resultsPage(main, id) {
  const url = `/studies/${encodeURIComponent(id)}`;
  const title = el("h1", {}, "Study");
  const state = el("span", {});
  const facts = el("p", { class: "facts" });
  const flagged = el("input", { type: "checkbox", onchange: () => load() });
  const shut = el("button", { type: "button", onclick: close }, "Close the study");
  const trouble = el("div", {});
  const body = el("div", { class: "results" });
  const count = el("input", { id: "count", type: "number", min: 1, max: 1000, value: 10, required: true });
  const pages = el("textarea", { readonly: true, rows: 6, hidden: true, "aria-label": "pages of voters" });
  const invite = el("form", { class: "invite", onsubmit: invitePeople },
    el("label", { for: "count" }, "Voters to invite"), count, el("button", { type: "submit" }, "Make their pages"));
  const open = el("p", { class: "hint" }, "One page for all: ", el("a", { href: `#${url}` }, address(`#${url}`)),
    ". Where API keys are on, it is for who signs in, and a key is one voter.");
  let stopped = false;
  let asked = 0;
  fill(main,
    el("article", { class: "job" },
      el("p", { class: "crumb" }, el("a", { href: "#/studies" }, "All studies")),
      el("div", { class: "heading" }, title, state),
      facts,
      el("div", { class: "actions" }, el("a", { class: "button", href: `/v1${url}/votes.csv`, download: true }, "All votes, CSV"), shut),
      el("p", { class: "lead" }, "Send each voter a page of their own: it votes once."),
      invite, pages, open, trouble,
      el("label", { class: "toggle" }, flagged, "Count voters who contradict themselves, too"),
      body));

  async function load() {
    const mine = (asked += 1);
    const found = await api(`${url}/results?flagged=${flagged.checked}`);
    if (stopped || mine !== asked) return;
    fill(trouble);
    show(found);
  }

  function show(found) {
    const { study } = found;
    document.title = `${study.name} · DpDy`;
    setText(title, study.name);
    fill(state, badge(study.state));
    setText(facts, [study.question, `${found.votes} votes`, `${found.voters.length} of ${study.voters} voters voted`].join("  ·  "));
    for (const part of [shut, invite, open]) part.hidden = study.state === "closed";
    const unfolded = body.querySelector("details")?.open;
    fill(body, scores(found), pairs(found.comparisons), voters(found), el("ul", { class: "notes" }, ...found.notes.map((note) => el("li", {}, note))));
    if (unfolded) body.querySelector("details").open = true;
  }

  async function invitePeople(event) {
    event.preventDefault();
    const button = invite.querySelector("button");
    button.disabled = true;
    try {
      const made = await post(`${url}/invitations`, { count: Number(count.value) });
      const lines = made.items.map((voter) => address(voter.page.slice(1)));
      pages.value = [...pages.value.split("\n").filter(Boolean), ...lines].join("\n");
      pages.hidden = false;
      pages.select();
      fill(trouble);
    } catch (error) {
      fill(trouble, problemBox(error));
    } finally {
      button.disabled = false;
    }
  }

  async function close() {
    try {
      await post(`${url}/close`);
      await load();
    } catch (error) {
      fill(trouble, problemBox(error));
    }
  }

  async function loop() {
    while (!stopped) {
      if (!document.hidden) await load().catch((error) => fill(trouble, problemBox(error)));
      await new Promise((resolve) => setTimeout(resolve, POLL));
    }
  }

  loop();
  return () => (stopped = true);
}

function address(hash) {
  return `${location.origin}${location.pathname}${hash}`;
}

function section(id, title, ...children) {
  return el("section", { "aria-labelledby": id }, el("h2", { id }, title), ...children);
}

function table(heads, rows) {
  return el("table", {}, el("thead", {}, el("tr", {}, ...heads.map((head) => el("th", { scope: "col" }, head)))), el("tbody", {}, ...rows));
}

function row(head, ...cells) {
  return el("tr", {}, el("th", { scope: "row" }, head), ...cells.map((cell) => el("td", {}, cell)));
}

function scores(found) {
  const low = Math.min(...found.methods.map((entry) => entry.low));
  const high = Math.max(...found.methods.map((entry) => entry.high));
  const at = (value) => `${(100 * (value - low)) / (high - low || 1)}%`;
  const rows = found.methods.map((entry) =>
    row(entry.method,
      el("span", { class: "whisker", "aria-hidden": "true" },
        el("i", { style: `left:${at(entry.low)};right:calc(100% - ${at(entry.high)})` }), el("b", { style: `left:${at(entry.score)}` })),
      signed(entry.score), `${signed(entry.low)} to ${signed(entry.high)}`, String(entry.wins), String(entry.ties), String(entry.losses)));
  const model = found.model === "davidson" ? "Bradley-Terry scores with ties (Davidson, 1970)" : "Bradley-Terry scores";
  return section("scores", "Scores",
    table(["Method", "", "Score", "95 %", "Wins", "Ties", "Losses"], rows),
    el("p", { class: "hint" }, `${model}: log odds, which sum to 0. Intervals: ${found.interval}.`));
}

function pairs(comparisons) {
  const rows = comparisons.map((pair) =>
    row(`${pair.first} over ${pair.second}`,
      pair.preferred === null ? "–" : percent(pair.preferred),
      pair.preferred === null ? "–" : `${percent(pair.low)} to ${percent(pair.high)}`,
      String(pair.wins), String(pair.ties), String(pair.losses)));
  return section("pairs", "Method against method", table(["Preferred", "Share, ties half", "95 %", "Wins", "Ties", "Losses"], rows));
}

function voters({ agreement, voters: all }) {
  const agreed = agreement
    ? `Of two voters who judge the same pair, ${percent(agreement.same)} give the same answer; Kendall's u is ${signed(agreement.u)} (1: all agree, 0: chance).`
    : "No two voters have judged the same pair yet.";
  const rows = all.map((voter) =>
    row(`Voter ${voter.voter}`, String(voter.votes), `${voter.left} / ${voter.right}`, `${voter.contradictions} of ${voter.repeated}`, voter.flagged ? "flagged" : ""));
  return section("voters", "Voters",
    el("p", {}, agreed),
    el("details", {}, el("summary", {}, `${all.length} voters, ${all.filter((voter) => voter.flagged).length} flagged`),
      table(["Voter", "Votes", "Left / right", "Contradictions", ""], rows)));
}

function percent(share) {
  return `${Math.round(100 * share)} %`;
}

function signed(value) {
  return `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(2)}`;
}
