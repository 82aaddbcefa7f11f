// A run: from the button to the last file, told in words as it goes.

import { byId, make, save } from "./dom.js";
import { lacking } from "./environments.js";
import { clearFaults, faultsOf, showFaults } from "./faults.js";
import { Job } from "./job.js";
import { clearOutputs, showOutputs } from "./outputs.js";
import { Terminal } from "./terminal.js";
import { UploadBar } from "./upload.js";
import { clock, count, duration, missing, size, verdict } from "./words.js";

const LONG_UPLOAD_BYTES = 1 << 20;
const READ_FOR_HINTS = 50; // last lines

/**
 * Runs one program at a time; `prepare()` answers with {manifest, files}, `changed()` is told that quota was used,
 * `environments()` are those of the server, `choose(name)` takes one of them.
 */
export class Runner {
  constructor({ server, prepare, changed, environments, choose }) {
    this._server = server;
    this._prepare = prepare;
    this._changed = changed;
    this._environments = environments;
    this._choose = choose;
    this._job = null;
    this._busy = false;
    this._terminal = new Terminal(byId("output"), byId("output-text"), (lines) => {
      byId("dropped").hidden = lines === 0;
      byId("dropped").textContent = `${count(lines, "earlier line")} not shown here; "Save output" has what the server kept.`;
    });
    byId("run").addEventListener("click", () => this.run());
    byId("cancel").addEventListener("click", () => this._cancel());
    byId("delete").addEventListener("click", () => this._delete());
    byId("save-output").addEventListener("click", () => this._saveOutput());
    byId("copy-output").addEventListener("click", () => this._copyOutput());
    byId("streams").addEventListener("change", ({ target }) => this._terminal.filter(target.value));
    byId("plain").addEventListener("change", ({ target }) => this._terminal.setPlain(target.checked));
    byId("download-all").addEventListener("click", () => { this.say("good", "Downloading. The job is deleted once the download is complete."); });
  }

  /** Whether leaving the page would lose a job that runs. */
  get isBusy() { return this._busy; }

  /** Show and announce where things stand; kind is idle, busy, good or bad. */
  say(kind, text) {
    const status = byId("status");
    status.dataset.kind = kind;
    status.textContent = text;
  }

  /** Show and announce what is no part of a run, unless one is under way. */
  mention(text) { if (!this._busy) this.say("idle", text); }

  /** Show what went wrong before a program or apart from it. */
  fault(title, text) {
    const notice = byId("notice");
    notice.replaceChildren(make("strong", {}, title), /[.!?…]$/.test(text) ? text : `${text}.`);
    notice.hidden = false;
  }

  /** Run what the page holds. */
  async run() {
    if (this._busy) return;
    clearFaults();
    let request;
    try {
      request = this._prepare();
    } catch (error) {
      this.say("bad", "Not run.");
      this.fault("Please check", error.message);
      if (error.field) showFaults([error], { focus: true });
      return;
    }
    this._setBusy(true);
    this._reset();
    try {
      await this._round(request);
    } catch (error) {
      this._failed(error);
    } finally {
      await this._shown();
      this._setBusy(false);
      this._changed();
    }
  }

  async _round({ manifest, files }) {
    const bytes = files.reduce((sum, [, blob]) => sum + blob.size, 0);
    const long = bytes > LONG_UPLOAD_BYTES;
    this.say("busy", long ? `Uploading ${size(bytes)}…` : "Submitting…");
    // Only what takes long is broken off: otherwise the job could have begun, and nobody would know its name.
    this._bar = long ? new UploadBar(bytes, {
      sent: () => this._progress("Sent. Waiting for the server…"),
      again: () => this._progress("The connection broke. Uploading again…"),
    }) : null;
    let id;
    try {
      ({ job_id: id } = await this._server.submit(manifest, files, this._bar));
    } finally {
      this._bar?.end();
    }
    let phase = manifest.requirements ? "Installing packages, then running…" : "Running…";
    this._job = new Job(this._server, id, {
      queued: (position) => this.say("busy", position ? `Waiting: position ${position} in the queue.` : "Waiting for a free slot."),
      running: () => this._running(phase),
      reconnecting: () => this.say("busy", "The connection broke. Connecting again…"),
      output: (stream, text) => {
        phase = "Running…"; // the installer's own output comes at the end, if it failed
        this._running(phase);
        this._terminal.write(stream, text);
      },
    });
    if (this._cancelled) await this._job.remove();
    this._changed();
    const status = await this._job.follow();
    await this._shown();
    this._numbers(status, manifest);
    for (const button of ["save-output", "copy-output"]) byId(button).hidden = this._terminal.lines === 0;
    const { good, text } = verdict(status);
    const left = Object.keys(status.output_files ?? {}).length;
    const printed = this._terminal.lines ? ` ${count(this._terminal.lines, "line")} of output.` : " No output.";
    this.say(good ? "good" : "bad", `${text}${printed}${left ? ` ${count(left, "output file")}.` : ""}`);
    if (!good) this._hint();
    await this._beyond(() => this._tellMissing(id));
    await this._beyond(() => showOutputs(this._server, id));
  }

  // A page that nobody looks at is given so little time that the terminal comes to its end only when somebody does.
  async _shown() {
    if (!document.hidden) await this._terminal.flush();
  }

  async _tellMissing(id) {
    const logs = await this._server.logs(id, this._job.sequence);
    const text = missing(logs);
    byId("cut").hidden = text === "";
    byId("cut").textContent = text;
    if (text) byId("save-output").textContent = `Save the first ${size(logs.next_offset)}`;
  }

  _hint() {
    const found = lacking(this._terminal.text(READ_FOR_HINTS), this._environments());
    if (!found) return;
    const hint = byId("hint");
    const names = found.environments;
    hint.replaceChildren(names.length > 0
      ? `The module "${found.module}" is in the environment${names.length > 1 ? "s" : ""} ${names.join(", ")}. `
      : `No environment of this server has the module "${found.module}". Name its package under "More" if the server installs packages.`);
    for (const name of names) {
      hint.append(make("button", { type: "button", class: "quiet", onclick: () => {
        this._choose(name);
        hint.hidden = true;
        byId("run").focus();
        this.mention(`The environment is ${name}. Run the program again.`);
      } }, `Use ${name}`), " ");
    }
    hint.hidden = false;
  }

  _progress(text) { if (!this._cancelled) this.say("busy", text); }

  _running(text) {
    if (this._cancelled) return;
    if (byId("status").textContent !== text) this.say("busy", text);
    if (this._timer) return;
    const since = performance.now();
    const shown = byId("clock");
    this._timer = setInterval(() => {
      shown.hidden = false;
      shown.textContent = `${duration(Math.round((performance.now() - since) / 1000))}`;
    }, 1000);
  }

  _setBusy(busy) {
    this._busy = busy;
    const run = byId("run");
    const cancel = byId("cancel");
    // Not `disabled`: that would take the focus away from who pressed it.
    run.setAttribute("aria-disabled", String(busy));
    if (!busy && document.activeElement === cancel) run.focus();
    cancel.hidden = !busy;
    byId("output").setAttribute("aria-busy", String(busy));
    if (!busy) {
      clearInterval(this._timer);
      this._timer = null;
      byId("clock").hidden = true;
    }
  }

  _reset() {
    this._job = null;
    this._cancelled = false;
    clearInterval(this._countdown);
    this._terminal.clear();
    clearOutputs();
    byId("notice").hidden = true;
    byId("numbers").hidden = true;
    for (const id of ["save-output", "copy-output", "cut", "hint"]) byId(id).hidden = true;
    byId("save-output").textContent = "Save output";
  }

  _failed(error) {
    if (this._cancelled && (this._job || error.status !== 0)) {
      this.say("idle", this._job ? "Cancelled. The job and its files are deleted." : "Cancelled. Nothing was run.");
      return;
    }
    this.say("bad", this._job ? "The run was lost." : error.status === 429 ? "Not run: your quota is used up." : "Not run.");
    this.fault(error.title ?? "Something went wrong in this page", error.message);
    // Who waited for a long upload does something else by now.
    showFaults(faultsOf(error.errors ?? []), { focus: !this._bar });
    if (error.retryAfter) this._countDown(error.retryAfter);
  }

  _countDown(seconds) {
    const until = performance.now() + 1000 * seconds;
    // Announced once, with the number it begins with; the changing one is for the eye.
    const text = make("span", { "aria-hidden": "true" });
    byId("notice").append(make("span", { class: "hidden" }, ` You can run again at ${clock(seconds)}.`), " ", text);
    const show = () => {
      const left = Math.max(0, Math.ceil((until - performance.now()) / 1000));
      text.textContent = left ? `You can run again at ${clock(left)}.` : "";
      if (left) return;
      clearInterval(this._countdown);
      byId("notice").hidden = true;
      this.say("idle", "You can run again.");
      this._changed();
    };
    this._countdown = setInterval(show, 1000);
    show();
  }

  async _cancel() {
    this.say("busy", "Cancelling…");
    this._cancelled = true;
    if (!this._job) this._bar?.abort();
    await this._beyond(() => this._job?.remove());
  }

  async _delete() {
    await this._beyond(async () => {
      await this._job.remove();
      clearOutputs();
      byId("save-output").hidden = true;
      byId("run").focus();
      this.say("idle", "The job and its files are deleted.");
    });
  }

  async _saveOutput() {
    await this._beyond(async () => {
      const answer = await this._server.fetch(this._server.url("logs", this._job.id), { headers: { Accept: "text/plain" } });
      save(await answer.blob(), "output.txt");
    });
  }

  async _copyOutput() {
    try {
      await navigator.clipboard.writeText(this._terminal.text());
      this.mention("The output is copied.");
    } catch {
      this.fault("Not copied", "The browser does not allow it here. Choose \"Plain text\" and copy from there.");
    }
  }

  async _beyond(action) {
    try {
      await action();
    } catch (error) {
      this.fault(error.title ?? "Something went wrong in this page", error.message);
    }
  }

  _numbers({ metrics, limits, execution_metadata: { environment } }, { requirements }) {
    const values = {
      "Time": duration(metrics.runtime),
      "CPU": duration(metrics.cpu_seconds),
      "Memory": `${size(metrics.memory_mb * 1048576)} of ${limits.memory_mb} MB`,
      "Queued": duration(metrics.queued_seconds),
      ...(requirements && { "Packages": duration(metrics.setup_seconds) }),
      "Environment": environment,
    };
    const pairs = Object.entries(values).map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value)));
    byId("numbers").replaceChildren(...pairs);
    byId("numbers").hidden = false;
  }
}
