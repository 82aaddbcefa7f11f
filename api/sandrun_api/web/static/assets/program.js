// The program that a person writes: its text, its file, what it gets.

import { splitArguments } from "./arguments.js";
import { byId } from "./dom.js";
import { FieldFault, reading } from "./faults.js";
import { readFields, writeFields } from "./form.js";
import { interpreterOf, isSample, language } from "./languages.js";
import { createEditor } from "./vendor/codemirror.js";

const OUTSIDE = /(?:^|\/)\.\.(?:\/|$)|\/$/;
const LIMITS = [["timeout", "timeout", "time limit"], ["memory_mb", "memory", "memory limit"], ["cpu_seconds", "cpu", "CPU time limit"]];

/** The editor and the fields around it; `run` is called for Ctrl-Enter, `pick(interpreter)` chooses a language. */
export class Program {
  constructor({ run, pick }) {
    this._pick = pick;
    this._fileName = byId("file-name");
    this._defaultName = this._fileName.value;
    this._editor = createEditor({
      host: byId("editor"),
      // The hint is in the label: ids do not reach into a shadow root.
      attributes: { "aria-label": "Code. Escape, then Tab, leaves the editor.", tabindex: "0", autocapitalize: "off", autocorrect: "off", spellcheck: "false" },
      changed: () => byId("editor").dispatchEvent(new Event("sandrun-edit", { bubbles: true })),
      bindings: ["Ctrl-Enter", "Mod-Enter"].map((key) => ({ key, run: () => { run(); return true; } })),
    });
    for (const id of ["arguments", "stdin"]) byId(id).addEventListener("input", () => this._summarize());
    this._fileName.addEventListener("change", () => {
      const interpreter = interpreterOf(this.path);
      if (interpreter && language(interpreter).file !== this._defaultName) pick(interpreter);
    });
  }

  /** Go over to a language: its colours, its name of the file, its first program where nothing else was written. */
  setLanguage(interpreter) {
    const { file, sample } = language(interpreter);
    this._editor.setLanguage(interpreter);
    if (["", this._defaultName].includes(this.path)) this._fileName.value = file;
    this._defaultName = file;
    if (this._editor.text.trim() === "" || isSample(this._editor.text)) this._editor.text = sample;
  }

  /** Where the code lies among the uploaded files. */
  get path() { return this._fileName.value.trim().replace(/^(\.?\/)+/, ""); }

  /** The code as a file. */
  get blob() { return new Blob([this._editor.text], { type: "text/plain" }); }

  get code() { return this._editor.text; }

  focus() { this._editor.focus(); }

  /** Open the editor's search. */
  find() { this._editor.find(); }

  /** Edit this file. */
  open(path, text) {
    this._fileName.value = path;
    this._editor.text = text;
    const interpreter = interpreterOf(path);
    if (interpreter) this._pick(interpreter);
    this.focus();
  }

  /** The manifest. Throws FieldFault. */
  manifest(interpreter, environment) {
    if (!this.path) throw new FieldFault("file-name", "The file needs a name.");
    if (OUTSIDE.test(this.path)) throw new FieldFault("file-name", "The file must be inside the work directory: no .. and no / at the end.");
    const manifest = { entrypoint: this.path, interpreter, environment, args: reading("arguments", splitArguments) };
    if (byId("stdin").value) manifest.stdin = byId("stdin").value;
    for (const [field, id, what] of LIMITS) {
      const input = byId(id);
      if (!input.checkValidity()) throw new FieldFault(id, outOfRange(input, what));
      if (input.value) manifest[field] = Number(input.value);
    }
    return manifest;
  }

  /** Everything a link carries. */
  fields() {
    return { code: this._editor.text, ...readFields() };
  }

  /** What a link carried; what it does not name becomes empty. */
  setFields(fields) {
    writeFields(fields);
    if (!fields.file) this._fileName.value = this._defaultName;
    this._editor.text = fields.code ?? "";
  }

  _summarize() {
    const stdin = byId("stdin").value;
    byId("input-summary").textContent = [byId("arguments").value, stdin && "with standard input"].filter(Boolean).join(" · ");
  }
}

function outOfRange({ min, max, step }, what) {
  const unit = step === "1" ? "MB, in whole numbers" : "seconds";
  return `The ${what} must be ${max ? `between ${min} and ${max}` : `at least ${min}`} ${unit}.`;
}
