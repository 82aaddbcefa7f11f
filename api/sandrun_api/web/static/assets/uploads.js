// The files that go with the program: chosen, or dropped anywhere on the page, folders too.

import { byId, make } from "./dom.js";
import { count, size } from "./words.js";

const MOST_FILES = 5000;
const MOST_SHOWN = 200;
const EDITABLE_BYTES = 256 << 10;
const LEFT_OUT = new Set([".git", ".hg", "__pycache__", ".DS_Store", "Thumbs.db"]);

/** The list of files; `open(path, text)` edits one, `say(text)` announces, `fault(text)` complains, `changed(paths)` is told. */
export class Uploads {
  constructor({ open, say, fault, changed }) {
    this.files = new Map(); // path: File
    this.mostBytes = Infinity;
    this._open = open;
    this._say = say;
    this._fault = fault;
    this._changed = changed;
    this._list = byId("files");
    for (const kind of ["file", "folder"]) {
      const input = byId(`${kind}-input`);
      byId(kind === "file" ? "add-files" : "add-folder").addEventListener("click", () => input.click());
      input.addEventListener("change", () => {
        this.add(Array.from(input.files, (file) => [file.webkitRelativePath || file.name, file]));
        input.value = ""; // the same file may be chosen again
      });
    }
    this._watchDrops();
  }

  /** Take [path, File] pairs; a path that is there already gets the new file. */
  add(pairs) {
    const taken = pairs.filter(([path]) => !path.split("/").some((part) => LEFT_OUT.has(part)));
    const wanted = new Map([...this.files, ...taken]);
    const bytes = total(wanted);
    if (wanted.size > MOST_FILES) {
      this._fault(`That would be ${wanted.size} files; at most ${MOST_FILES} can be sent. Pack them in an archive.`);
    } else if (bytes > this.mostBytes) {
      this._fault(`That would be ${size(bytes)}; this server takes at most ${size(this.mostBytes)}.`);
    } else {
      this.files = wanted;
      byId("file-options").open = true;
      this._show();
      this._say(`${count(taken.length, "file")} added, ${count(this.files.size, "file")} in all.`);
    }
  }

  _remove(path) {
    this.files.delete(path);
    this._show();
    byId("add-files").focus(); // the button that had the focus is gone
    this._say(`${path} removed.`);
  }

  async _edit(path) {
    const text = await this.files.get(path).text();
    this.files.delete(path);
    this._show();
    this._open(path, text);
  }

  _show() {
    const rows = [...this.files].slice(0, MOST_SHOWN).map(([path, file]) => {
      const row = make("li", {}, make("span", { class: "path" }, path), make("span", { class: "muted" }, size(file.size)));
      if (file.size <= EDITABLE_BYTES) {
        row.append(make("button", { type: "button", class: "quiet", onclick: () => this._edit(path), "aria-label": `Edit and run ${path}` }, "Edit"));
      }
      row.append(make("button", { type: "button", class: "quiet", onclick: () => this._remove(path), "aria-label": `Remove ${path}` }, "Remove"));
      return row;
    });
    if (this.files.size > MOST_SHOWN) rows.push(make("li", {}, `and ${count(this.files.size - MOST_SHOWN, "more file")}`));
    this._list.replaceChildren(...rows);
    byId("files-summary").textContent = this.files.size ? `${count(this.files.size, "file")}, ${size(total(this.files))}` : "";
    this._changed([...this.files.keys()]);
  }

  _watchDrops() {
    const root = document.documentElement;
    const holdsFiles = (event) => event.dataTransfer?.types.includes("Files");
    // Before the editor, which would take a dropped file for text.
    window.addEventListener("dragover", (event) => {
      if (!holdsFiles(event)) return;
      event.preventDefault();
      event.stopPropagation();
      event.dataTransfer.dropEffect = "copy";
      root.classList.add("dragging");
    }, true);
    window.addEventListener("dragleave", (event) => { if (!event.relatedTarget) root.classList.remove("dragging"); });
    window.addEventListener("drop", async (event) => {
      if (!holdsFiles(event)) return;
      event.preventDefault();
      event.stopPropagation();
      root.classList.remove("dragging");
      // The entries must be asked for before the event ends.
      const items = [...event.dataTransfer.items].filter((item) => item.kind === "file");
      const entries = items.map((item) => item.webkitGetAsEntry?.() ?? item.getAsFile());
      try {
        const pairs = [];
        for (const entry of entries.filter(Boolean)) await collect(entry, pairs);
        this.add(pairs);
      } catch {
        this._fault("What was dropped cannot be read.");
      }
    }, true);
  }
}

function total(files) {
  let bytes = 0;
  for (const file of files.values()) bytes += file.size;
  return bytes;
}

async function collect(entry, pairs) {
  if (pairs.length > MOST_FILES || LEFT_OUT.has(entry.name)) return;
  if (entry instanceof File) {
    pairs.push([entry.name, entry]);
  } else if (entry.isFile) {
    pairs.push([entry.fullPath.replace(/^\//, ""), await new Promise((resolve, reject) => { entry.file(resolve, reject); })]);
  } else {
    const reader = entry.createReader();
    for (;;) { // a reader gives about a hundred at a time
      const some = await new Promise((resolve, reject) => { reader.readEntries(resolve, reject); });
      if (some.length === 0) return;
      for (const child of some) await collect(child, pairs);
    }
  }
}
