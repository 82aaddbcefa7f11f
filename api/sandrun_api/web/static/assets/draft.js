// The program as it was left, kept in this browser only, until it is cleared.

import { byId } from "./dom.js";
import { isEmbedded, readSetting, writeSetting } from "./settings.js";

const NAME = "draft";
const PAUSE_MS = 400;
const MOST_CHARACTERS = 1 << 20; // of what a browser keeps for a site, about a fifth
// Variables are where people keep their keys.
const NEVER_KEPT = ["variables"];

/** `read()` answers with the fields, `open(fields)` shows them, `isLost()` says whether leaving would lose more than those. */
export class Draft {
  constructor({ read, open, isLost }) {
    this._read = read;
    this._open = open;
    this._isLost = isLost;
    this._isOn = false;
    this._isUnsaved = false;
    this._before = null; // the page is not complete yet
    byId("draft-clear").addEventListener("click", () => this._clear());
    byId("draft-open").addEventListener("click", () => this._restore());
  }

  /** Open what was left, unless a link was opened: then nothing is kept while something else still is. */
  begin({ fromLink }) {
    if (isEmbedded()) return;
    const kept = this._kept();
    this._isOn = !(fromLink && kept);
    if (kept && this._isOn) this._restore();
    else this._show();
    for (const kind of ["input", "change", "sandrun-edit"]) {
      document.addEventListener(kind, ({ target }) => { if (!target.closest?.("dialog")) this._changed(); });
    }
    window.addEventListener("pagehide", () => this._save());
    window.addEventListener("beforeunload", (event) => {
      this._save();
      if (this._isUnsaved || this._isLost()) event.preventDefault();
    });
  }

  /** What the page shows now is what it began with: only what differs from it is work. */
  settle() {
    this._before = JSON.stringify(this._read());
  }

  _kept() {
    try {
      const fields = JSON.parse(readSetting(NAME) || "null");
      return fields && typeof fields.code === "string" ? fields : null;
    } catch {
      return null; // not ours, or of another version
    }
  }

  _changed() {
    clearTimeout(this._timer);
    this._timer = setTimeout(() => this._save(), PAUSE_MS);
  }

  _save() {
    clearTimeout(this._timer);
    const fields = this._read();
    const text = JSON.stringify(fields);
    if (this._before === null || text === this._before) return;
    this._before = text;
    for (const name of NEVER_KEPT) delete fields[name];
    const kept = JSON.stringify(fields);
    this._isUnsaved = !this._isOn || kept.length > MOST_CHARACTERS || !writeSetting(NAME, kept);
    this._show();
  }

  _restore() {
    const kept = this._kept();
    this._isOn = true;
    if (kept) this._open(kept);
    this._before = JSON.stringify(this._read());
    this._isUnsaved = false;
    this._show();
  }

  _clear() {
    writeSetting(NAME, "");
    this._before = JSON.stringify(this._read()); // what is in the editor stays there
    this._isUnsaved = false;
    this._isOn = true;
    this._show();
    byId("editor-section").focus();
  }

  _show() {
    const kept = this._kept() !== null;
    byId("draft").hidden = !kept && !this._isUnsaved;
    byId("draft-clear").hidden = !kept;
    byId("draft-open").hidden = this._isOn || !kept;
    byId("draft-text").textContent = !this._isOn && kept
      ? "Changes are not saved here: this browser still holds an earlier program."
      : this._isUnsaved
        ? "Not saved: this browser keeps no more for this page."
        : "Saved in this browser, where its other users can read it, until you clear it.";
  }
}
