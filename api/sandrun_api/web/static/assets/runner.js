// A run: from the button to the last file, told in words as it goes.

import { byId, make, save } from "./dom.js";
import { clearFaults, faultsOf, showFaults } from "./faults.js";
import { Job } from "./job.js";
import { clearOutputs, showOutputs } from "./outputs.js";
import { Terminal } from "./terminal.js";
import { UploadBar } from "./upload.js";
import { count, duration, size, verdict } from "./words.js";

const LONG_UPLOAD_BYTES = 1 << 20;

/** Runs one program at a time; `prepare()` answers with {manifest, files}, `changed()` is told that quota was used. */
export class Runner {
  constructor({ server, prepare, changed }) {
    this._server = server;
    this._prepare = prepare;
    this._changed = changed;
    this._job = null;
    this._busy = false;
    this._terminal = new Terminal(byId("output"), (lines) => {
      byId("dropped").hidden = lines === 0;
      byId("dropped").textContent = `${count(lines, "earlier line")} not shown here; "Save output" has all of it.`;
    });
    byId("run").addEventListener("click", () => this.run());
    byId("cancel").addEventListener("click", () => this._cancel());
    byId("delete").addEventListener("click", () => this._delete());
    byId("save-output").addEventListener("click", () => this._saveOutput());
    byId("streams").addEventListener("change", ({ target }) => { byId("output").dataset.streams = target.value; });
    byId("download-all").addEventListener("click", () => { this.say("good", "Downloading. The job is deleted when all of it has arrived."); });
  }

  /** Show and announce where things stand; kind is idle, busy, good or bad. */
  say(kind, text) {
    const status = byId("status");
    status.dataset.kind = kind;
    status.textContent = text;
  }

  /** Show and announce what is no part of a run, unless one is under way. */
  mention(text) { if (!this._busy) this.say("idle", text); }

  /** Show what went wrong before or beside a program. */
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
      this._terminal.flush();
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
      queued: (position) => this.say("busy", position ? `Waiting: number ${position} in the queue.` : "Waiting for a free place."),
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
    this._terminal.flush();
    this._numbers(status, manifest);
    byId("save-output").hidden = this._terminal.lines === 0;
    const { good, text } = verdict(status);
    const left = Object.keys(status.output_files ?? {}).length;
    const printed = this._terminal.lines ? ` ${count(this._terminal.lines, "line")} of output.` : " It printed nothing.";
    this.say(good ? "good" : "bad", `${text}${printed}${left ? ` ${count(left, "file")} left.` : ""}`);
    await this._beyond(() => showOutputs(this._server, id));
  }

  _progress(text) { if (!this._cancelled) this.say("busy", text); }

  _running(text) {
    if (this._cancelled) return;
    if (byId("status").textContent !== text) this.say("busy", text);
    if (this._timer) return;
    const since = performance.now();
    const clock = byId("clock");
    this._timer = setInterval(() => {
      clock.hidden = false;
      clock.textContent = `for ${duration(Math.round((performance.now() - since) / 1000))}`;
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
    byId("save-output").hidden = true;
  }

  _failed(error) {
    if (this._cancelled && (this._job || error.status !== 0)) {
      this.say("idle", this._job ? "Cancelled. Everything of the job is deleted." : "Cancelled. Nothing was run.");
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
    byId("notice").append(make("span", { class: "hidden" }, ` You can run again in ${duration(seconds)}.`), " ", text);
    const show = () => {
      const left = Math.max(0, Math.ceil((until - performance.now()) / 1000));
      text.textContent = left ? `You can run again in ${duration(left)}.` : "";
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
      this.say("idle", "Everything of the job is deleted.");
    });
  }

  async _saveOutput() {
    await this._beyond(async () => {
      const answer = await this._server.fetch(this._server.url("logs", this._job.id), { headers: { Accept: "text/plain" } });
      save(await answer.blob(), "output.txt");
    });
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
      "Waited": duration(metrics.queued_seconds),
      ...(requirements && { "Packages": duration(metrics.setup_seconds) }),
      "Environment": environment,
    };
    const pairs = Object.entries(values).map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value)));
    byId("numbers").replaceChildren(...pairs);
    byId("numbers").hidden = false;
  }
}
