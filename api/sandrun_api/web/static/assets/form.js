// The fields around the program, under the names that links have for them.

import { byId } from "./dom.js";

const FIELDS = {
  file: "file-name", arguments: "arguments", stdin: "stdin", timeout: "timeout", memory: "memory", cpu: "cpu",
  packages: "packages", variables: "variables", keep: "keep", fresh: "fresh", buffered: "buffered", batch: "batch", gpu: "gpu",
};
const CHECKED = "yes";

/** The names of all that a link can carry, the program's own among them. */
export const LINK_NAMES = ["code", "language", "environment", ...Object.keys(FIELDS)];

/** What is set, as text. */
export function readFields() {
  const values = Object.entries(FIELDS).map(([name, id]) => [name, valueOf(byId(id))]);
  return Object.fromEntries(values.filter(([, value]) => value));
}

/** Set what is named, empty the rest, and unfold what a person should see of it. */
export function writeFields(fields) {
  for (const [name, id] of Object.entries(FIELDS)) {
    const element = byId(id);
    if (element.type === "checkbox") element.checked = fields[name] === CHECKED;
    else element.value = fields[name] ?? "";
    element.dispatchEvent(new Event("input", { bubbles: true }));
    const section = element.closest("details");
    if (section && valueOf(element)) section.open = true;
  }
}

function valueOf(element) {
  return element.type === "checkbox" ? element.checked && CHECKED : element.value;
}
