// Every setting of a preset as a field, from its values and the JSON Schema. Only what was changed is sent.
import { el } from "./dom.js";

const HIDDEN = new Set(["preset"]);

// `values`: the preset's config. Returns { element, changes() } where changes() maps dotted keys to values.
export function settingsForm(values, schema) {
  const fields = [];
  const element = el("div", { class: "settings" });
  const top = el("div", { class: "fields" });
  for (const [key, value] of Object.entries(values)) {
    if (HIDDEN.has(key)) continue;
    if (!isGroup(value)) {
      top.append(field(key, key, value, schema, fields));
      continue;
    }
    const inner = el("div", { class: "fields" });
    for (const [dotted, leaf] of leaves(value, key)) {
      inner.append(field(dotted, dotted.slice(key.length + 1), leaf, schema, fields));
    }
    element.append(el("details", {}, el("summary", {}, key), inner));
  }
  element.prepend(top);
  return { element, changes: () => Object.fromEntries(fields.map((read) => read()).filter(Boolean)) };
}

function isGroup(value) {
  return value !== null && typeof value === "object" && !Array.isArray(value);
}

function* leaves(group, prefix) {
  for (const [key, value] of Object.entries(group)) {
    if (isGroup(value)) yield* leaves(value, `${prefix}.${key}`);
    else yield [`${prefix}.${key}`, value];
  }
}

function field(dotted, label, value, schema, fields) {
  const about = describe(schema, dotted);
  const id = `setting-${dotted}`;
  const input = control(id, value, about);
  fields.push(() => {
    const now = read(input, value);
    return JSON.stringify(now) === JSON.stringify(value) ? null : [dotted, now];
  });
  input.setAttribute("aria-label", dotted); // `steps` alone would name two fields
  const note = about.description ? el("small", { id: `${id}-about` }, about.description) : null;
  if (note) input.setAttribute("aria-describedby", `${id}-about`);
  return el("div", { class: "field" }, el("label", { for: id }, label), input, note);
}

function control(id, value, about) {
  if (typeof value === "boolean") return el("input", { id, type: "checkbox", checked: value });
  if (about.enum) {
    return el("select", { id }, ...about.enum.map((name) => el("option", { selected: name === value }, name)));
  }
  if (typeof value === "number") return el("input", { id, type: "number", step: "any", value: String(value) });
  return el("input", { id, type: "text", value: typeof value === "string" ? value : JSON.stringify(value) });
}

function read(input, before) {
  if (input.type === "checkbox") return input.checked;
  if (typeof before === "number") return input.value === "" ? before : Number(input.value);
  if (typeof before === "string") return input.value;
  try {
    return JSON.parse(input.value); // null and lists are written as JSON
  } catch {
    return input.value;
  }
}

// What the schema says of one dotted key: description and, for a choice, its enum.
export function describe(schema, dotted) {
  let node = resolve(schema, schema);
  for (const key of dotted.split(".")) {
    const next = node.properties?.[key];
    if (!next) return {};
    node = { ...resolve(next, schema), ...(next.description ? { description: next.description } : {}) };
  }
  return { description: node.description, enum: node.enum };
}

function resolve(node, schema) {
  if (node.$ref) return resolve(node.$ref.slice(2).split("/").reduce((place, key) => place[key], schema), schema);
  if (node.allOf?.length === 1) return resolve(node.allOf[0], schema);
  return node;
}
