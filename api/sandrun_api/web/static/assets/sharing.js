// Giving a program to somebody else: as a link, a command, a program that runs it, a frame for a page.

import { byId } from "./dom.js";
import { encodeLink } from "./share.js";
import { asCurl, asFrame, asPython, runBody } from "./snippets.js";

const SNIPPETS = { "copy-curl": ["a curl command", asCurl], "copy-python": ["a Python program", asPython] };

/** `fields()` is all a link has, `prepare()` what would be run, `added()` how many files were added; the runner says how it went. */
export class Sharing {
  constructor({ server, runner, fields, prepare, added }) {
    Object.assign(this, { _server: server, _runner: runner, _fields: fields, _prepare: prepare, _added: added });
    byId("share").addEventListener("click", () => this._link());
    for (const id of Object.keys(SNIPPETS)) byId(id).addEventListener("click", () => this._snippet(id));
    byId("copy-frame").addEventListener("click", () => this._frame());
    const menu = byId("copy-menu");
    menu.addEventListener("click", ({ target }) => { if (target.closest("button")) this._close(menu); });
    menu.addEventListener("keydown", ({ key }) => { if (key === "Escape") this._close(menu); });
    menu.addEventListener("focusout", ({ relatedTarget }) => { if (relatedTarget && !menu.contains(relatedTarget)) menu.open = false; });
  }

  _close(menu) {
    menu.open = false;
    menu.querySelector("summary").focus();
  }

  async _link() {
    const fields = this._fields();
    let fragment;
    try {
      fragment = await encodeLink(fields);
    } catch (error) {
      this._runner.fault("No link", error.message);
      return;
    }
    history.replaceState(null, "", `#${fragment}`);
    // Variables are where people keep their keys.
    const within = fields.variables ? " So are the values of its environment variables." : "";
    const without = this._added() > 0 ? " The added files are not in it." : "";
    const what = "The program is in the link itself; no server has it.";
    await this._copy(location.href, `The link is copied. ${what}${within}${without}`, `The link is in the address bar. ${what}${within}${without}`);
  }

  async _frame() {
    try {
      const { variables, ...fields } = this._fields();
      const without = variables ? " The environment variables are not in it." : "";
      await this._copy(asFrame(this._server.address, await encodeLink(fields)), `The frame is copied, to be pasted into a page.${without}`);
    } catch (error) {
      this._runner.fault("No frame", error.message);
    }
  }

  async _snippet(id) {
    const [what, write] = SNIPPETS[id];
    try {
      const { manifest, files } = this._prepare();
      const [[, code], ...others] = files;
      const named = others.filter(([path]) => path === manifest.requirements);
      const texts = Object.fromEntries(await Promise.all(named.map(async ([path, blob]) => [path, await blob.text()])));
      const left = others.length - named.length;
      const text = write(this._server.address, runBody(manifest, await code.text(), texts));
      await this._copy(text, `Copied as ${what}.${left > 0 ? " The added files are not in it." : ""}`);
    } catch (error) {
      this._runner.fault("Not copied", error.message);
    }
  }

  async _copy(text, done, otherwise = "") {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      if (!otherwise) throw new Error("The browser does not allow it here.");
      done = otherwise;
    }
    this._runner.mention(done);
  }
}
