// Where a key is needed: it is shown once, and a cookie that scripts cannot read takes its place.
import { el, fill, post, problemBox } from "./dom.js";

export function loginView(main, onDone) {
  document.title = "Sign in · DpDy";
  const key = el("input", { id: "key", type: "password", autocomplete: "current-password", required: true, spellcheck: "false" });
  const enter = el("button", { type: "submit", class: "primary" }, "Sign in");
  const trouble = el("div", {});
  const form = el("form", { onsubmit: submit },
    el("div", { class: "field wide" }, el("label", { for: "key" }, "API key"), key,
      el("small", {}, "The operator makes keys: dpdy admin keys create")),
    trouble,
    enter);

  async function submit(event) {
    event.preventDefault();
    enter.disabled = true;
    try {
      await post("/session", { key: key.value });
      onDone();
    } catch (error) {
      fill(trouble, problemBox(error));
      enter.disabled = false;
      key.select();
    }
  }

  fill(main, el("div", { class: "home" }, el("section", { class: "make", "aria-labelledby": "signin" },
    el("h1", { id: "signin" }, "Sign in"), form)));
  key.focus();
  return () => {};
}
