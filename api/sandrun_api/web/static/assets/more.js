// What few programs need: packages, variables, which files to keep, how it is started.

import { byId, make } from "./dom.js";
import { FieldFault, reading } from "./faults.js";
import { namesPackages, packagesFileOf, packagesText } from "./packages.js";
import { readVariables } from "./variables.js";
import { count } from "./words.js";

const lines = (text) => text.split("\n").map((line) => line.trim()).filter(Boolean);
const HELP = {
  "requirements.txt": "One per line, as in requirements.txt: numpy==2.2.0",
  "package.json": "One per line: left-pad or left-pad@1.3.0. Or a complete package.json.",
  "Gemfile": "A complete Gemfile, including its source.",
};

/** The section that is folded away. */
export class More {
  constructor() {
    this._written = byId("packages-written");
    this._file = byId("packages-file");
    this._summary = byId("more-summary");
    byId("more-options").addEventListener("input", () => this._show());
  }

  /** Say how packages are named in that language. */
  setLanguage(interpreter) {
    byId("packages-help").textContent = HELP[packagesFileOf(interpreter)];
  }

  /** Offer those of the added files that name packages. */
  offerFiles(paths) {
    const chosen = this._file.value;
    const named = paths.filter(namesPackages);
    this._file.replaceChildren(make("option", { value: "" }, "the field below"), ...named.map((path) => make("option", { value: path }, path)));
    this._file.value = named.includes(chosen) ? chosen : "";
    byId("packages-choice").hidden = named.length === 0;
    this._show();
  }

  /** Offer a GPU, if there is one. */
  offerGpus(gpus) {
    this._gpus = gpus.length;
    this._show();
  }

  /**
   * What all this is in a manifest, and the files ([path, Blob]) that go with it; paths are those there are already.
   * Throws FieldFault.
   */
  parts(interpreter, paths) {
    const fields = {};
    const files = [];
    const env = reading("variables", readVariables);
    if (Object.keys(env).length > 0) fields.env = env;
    const outputs = lines(byId("keep").value);
    if (outputs.length > 0) fields.outputs = outputs;
    if (this._file.value) {
      fields.requirements = this._file.value;
    } else if (byId("packages").value.trim()) {
      fields.requirements = packagesFileOf(interpreter);
      if (paths.includes(fields.requirements)) {
        throw new FieldFault("packages", `There is a file ${fields.requirements} already: empty this field, or remove the file.`);
      }
      const text = reading("packages", (written) => packagesText(written, interpreter));
      files.push([fields.requirements, new Blob([text], { type: "text/plain" })]);
    }
    if (byId("fresh").checked) fields.warm = false;
    if (byId("buffered").checked) fields.buffered = true;
    if (byId("batch").checked) fields.priority = "batch";
    if (byId("gpu").checked) fields.gpu = { required: true };
    return { fields, files };
  }

  _show() {
    this._written.hidden = this._file.value !== "";
    byId("gpu-choice").hidden = !this._gpus && !byId("gpu").checked; // a link may ask for one that is not there
    const variables = lines(byId("variables").value).filter((line) => !line.startsWith("#")).length;
    const patterns = lines(byId("keep").value);
    this._summary.textContent = [
      this._file.value ? `packages of ${this._file.value}` : byId("packages").value.trim() && "packages",
      variables > 0 && count(variables, "variable"),
      patterns.length > 0 && `keeps ${patterns.slice(0, 3).join(", ")}${patterns.length > 3 ? ", …" : ""}`,
      byId("gpu").checked && "GPU",
      byId("fresh").checked && "new interpreter",
      byId("buffered").checked && "buffered",
      byId("batch").checked && "low priority",
    ].filter(Boolean).join(" · ");
  }
}
