// The list of studies and the form of a new one, made of renders of finished jobs.
import { ago, api, badge, el, fill, post, problemBox } from "./dom.js";

export function studiesView(main) {
  document.title = "Studies · DpDy";
  const list = el("div", { class: "jobs" });
  const rows = el("div", { class: "clips" });
  const trouble = el("div", {});
  const name = el("input", { id: "study-name", type: "text", maxlength: 200, required: true, autocomplete: "off" });
  const question = el("input", { id: "question", type: "text", maxlength: 200, value: "Which of the two looks better?" });
  const path = el("select", { id: "path" });
  const ties = el("input", { id: "ties", type: "checkbox", checked: true });
  const form = el("form", { onsubmit: submit, novalidate: true },
    field("Name, shown to voters", "study-name", name),
    field("Question", "question", question),
    el("fieldset", {}, el("legend", {}, "Renders of finished jobs"), rows),
    field("Camera path", "path", path),
    el("label", { class: "toggle" }, ties, "Voters may see no difference"),
    trouble,
    el("button", { type: "submit", class: "primary" }, "Make the study"));
  let offered = [];

  function field(label, id, input) {
    return el("div", { class: "field" }, el("label", { for: id }, label), input);
  }

  async function load() {
    const [studies, jobs, presets] = await Promise.all([api("/studies?limit=100"), api("/jobs?state=succeeded&limit=100"), api("/presets")]);
    fill(path, ...presets.camera_paths.map((choice) => el("option", { selected: choice === "orbit" }, choice)));
    if (studies.items.length) fill(list, ...studies.items.map(row));
    else fill(list, el("p", { class: "empty" }, "Nothing yet. Studies that you make appear here."));
    offered = jobs.items.filter((job) => job.kind === "train").map(offer);
    if (offered.length) fill(rows, ...offered.map((clip) => clip.element));
    else fill(rows, el("p", { class: "empty" }, "No job has finished yet. Videos from elsewhere: dpdy vote --new."));
  }

  function row(study) {
    return el("a", { class: "row", href: `#/studies/${study.id}/results` },
      el("span", { class: "name" }, study.name), badge(study.state),
      el("span", { class: "meta" }, `${study.voters} ${study.voters === 1 ? "voter" : "voters"}  ·  ${ago(study.created_at)}`));
  }

  function offer(job) {
    const title = job.name || job.id;
    const used = el("input", { type: "checkbox", "aria-label": `compare ${title}` });
    const method = el("input", { type: "text", maxlength: 80, placeholder: "method", "aria-label": `method of ${title}` });
    const scene = el("input", { type: "text", maxlength: 80, placeholder: "scene", "aria-label": `scene of ${title}` });
    const element = el("div", { class: "clip" },
      el("label", {}, used, el("span", { class: "name" }, title), el("small", {}, `${job.preset}, ${ago(job.created_at)}`)), method, scene);
    const read = () => ({ job_id: job.id, path: `renders/${path.value}.mp4`, method: method.value.trim(), ...(scene.value.trim() ? { scene: scene.value.trim() } : {}) });
    return { element, chosen: () => used.checked, read };
  }

  async function submit(event) {
    event.preventDefault();
    const button = form.querySelector("button[type=submit]");
    button.disabled = true;
    try {
      const clips = offered.filter((clip) => clip.chosen()).map((clip) => clip.read());
      const study = await post("/studies", { name: name.value.trim(), question: question.value.trim(), ties: ties.checked, clips });
      location.hash = `#/studies/${study.id}/results`;
    } catch (error) {
      fill(trouble, problemBox(error));
    } finally {
      button.disabled = false;
    }
  }

  fill(main,
    el("div", { class: "home" },
      el("section", { class: "make", "aria-labelledby": "make" },
        el("h1", { id: "make" }, "Ask people"),
        el("p", { class: "lead" }, "Renders are shown in pairs, without names, in random order and on random sides."),
        form),
      el("section", { "aria-labelledby": "studies" }, el("h2", { id: "studies" }, "Studies"), list)));
  load().catch((error) => fill(list, problemBox(error)));
  return () => {};
}
