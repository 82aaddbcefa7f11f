// What is wrong with a field, shown next to it: found here, or by the server in a manifest.

import { byId, make } from "./dom.js";

// Where a person sets what a manifest calls so.
const FIELDS = {
  entrypoint: "file-name", interpreter: "language", environment: "environment", args: "arguments", stdin: "stdin", env: "variables",
  outputs: "keep", requirements: "packages", timeout: "timeout", memory_mb: "memory", cpu_seconds: "cpu", gpu: "gpu", warm: "fresh",
  buffered: "buffered", priority: "batch",
};

/** A fault of the field with that id. */
export class FieldFault extends Error {
  constructor(field, message) {
    super(message);
    this.field = field;
  }
}

/** What reads the field's text; its SyntaxError becomes the field's fault. */
export function reading(id, read) {
  try {
    return read(byId(id).value);
  } catch (error) {
    throw error instanceof SyntaxError ? new FieldFault(id, error.message) : error;
  }
}

/** The fields, with what is said of each, that a server's list of { pointer, detail } is about. */
export function faultsOf(errors) {
  const texts = new Map();
  for (const { pointer, detail } of errors) {
    const id = FIELDS[/^\/([^/]*)/.exec(pointer)?.[1]];
    if (id) texts.set(id, texts.has(id) ? `${texts.get(id)}; ${detail}` : detail);
  }
  return [...texts].map(([id, text]) => new FieldFault(id, text));
}

/** Show faults next to their fields, in place of all before; `focus` goes to the first. */
export function showFaults(faults, { focus }) {
  clearFaults();
  for (const { field, message } of faults) {
    const element = visible(field);
    const note = make("p", { class: "fault", id: `${element.id}-fault` }, message);
    (element.closest("label") ?? element).after(note);
    element.setAttribute("aria-invalid", "true");
    element.setAttribute("aria-describedby", [...described(element), note.id].join(" "));
    element.addEventListener("input", () => clear(element), { once: true });
  }
  if (focus && faults.length > 0) visible(faults[0].field).focus();
}

/** Forget all faults. */
export function clearFaults() {
  for (const element of document.querySelectorAll("[aria-invalid]")) clear(element);
}

// Packages are named in the field, or in a file that is chosen; what is folded away is unfolded.
function visible(field) {
  const own = byId(field);
  const element = own.closest("[hidden]") ? byId(own.closest("[hidden]").dataset.instead ?? field) : own;
  const section = element.closest("details");
  if (section) section.open = true;
  return element;
}

function clear(element) {
  document.getElementById(`${element.id}-fault`)?.remove(); // it may be gone already
  element.removeAttribute("aria-invalid");
  const rest = described(element).filter((id) => id !== `${element.id}-fault`);
  if (rest.length > 0) element.setAttribute("aria-describedby", rest.join(" "));
  else element.removeAttribute("aria-describedby");
}

function described(element) {
  return (element.getAttribute("aria-describedby") ?? "").split(" ").filter(Boolean);
}
