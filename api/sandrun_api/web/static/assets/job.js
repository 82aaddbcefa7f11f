// One job, followed to its end: where it waits, what it prints, how it ended.

import { ServerError } from "./server.js";

const FIRST_PAUSE_MS = 250;
const LONGEST_PAUSE_MS = 8000;
const MOST_FAILURES = 10; // in a row
const SOCKET_FAILURES = 2; // until events are tried, every other time
const POLL_MS = 1000;
const UNKNOWN_JOB = 4404;
const BAD_OFFSET = 4400;

const pause = (milliseconds) => new Promise((resolve) => { setTimeout(resolve, milliseconds); });

/** Follows a job; `tell` has the functions queued(position), running(), output(stream, text) and reconnecting(). */
export class Job {
  constructor(server, id, tell) {
    this.server = server;
    this.id = id;
    this.removed = false;
    this.sequence = 0; // of the last output that was told
    this._tell = tell;
    this._ended = false;
    this._isRunning = false;
  }

  /** The last status, once everything printed was told. Throws ServerError (404) when the job is deleted. */
  async follow() {
    this._watchQueue();
    try {
      for (let failures = 0; ; failures += 1) {
        const before = this.sequence;
        const listen = failures >= SOCKET_FAILURES && failures % 2 === 0 ? this._listenToEvents() : this._listenToSocket();
        const { status, code } = await listen;
        if (status) return status;
        if (code === UNKNOWN_JOB || this.removed) throw gone();
        if (code === BAD_OFFSET) throw new ServerError(400, "Output lost", "The server does not have this job's output any more.");
        if (this.sequence > before) failures = 0;
        if (failures >= MOST_FAILURES) throw new ServerError(0, "Connection lost", "The server cannot be reached. The job may still run.");
        this._tell.reconnecting();
        await pause(Math.min(FIRST_PAUSE_MS * 2 ** failures, LONGEST_PAUSE_MS));
      }
    } finally {
      this._ended = true;
    }
  }

  /** Cancel and delete the job. */
  async remove() {
    this.removed = true;
    await this.server.remove(this.id);
    this._connection?.close();
  }

  _listenToSocket() {
    return new Promise((resolve) => {
      let status = null;
      const socket = this.server.socket(this.id, this.sequence);
      this._connection = socket;
      socket.onmessage = ({ data }) => {
        const message = JSON.parse(data);
        if (message.type === "finished") status = message;
        else this._take(message);
      };
      socket.onopen = () => { if (this._isRunning) this._tell.running(); };
      socket.onclose = ({ code }) => resolve({ status, code });
    });
  }

  // For who sits behind a proxy that lets no WebSocket through.
  _listenToEvents() {
    return new Promise((resolve) => {
      const events = this.server.events(this.id, this.sequence);
      const end = (outcome) => {
        events.close();
        resolve(outcome);
      };
      this._connection = { close: () => end({ code: UNKNOWN_JOB }) };
      events.onmessage = ({ data }) => this._take(JSON.parse(data));
      events.onopen = () => { if (this._isRunning) this._tell.running(); };
      events.addEventListener("finished", ({ data }) => end({ status: JSON.parse(data) }));
      events.onerror = () => end({ code: 0 });
    });
  }

  _take({ sequence, stream, data }) {
    this.sequence = sequence;
    this._runs();
    this._tell.output(stream, data);
  }

  async _watchQueue() {
    while (!this._ended && !this._isRunning) {
      try {
        const { status, queue_position: position } = await this.server.json("status", this.id);
        if (this._ended || this._isRunning) return;
        if (status === "queued") this._tell.queued(position);
        else this._runs();
      } catch (error) {
        if (error.status === 404) return; // the socket tells of it
      }
      await pause(POLL_MS);
    }
  }

  _runs() {
    if (this._isRunning) return;
    this._isRunning = true;
    this._tell.running();
  }
}

function gone() {
  return new ServerError(404, "Deleted", "The job was cancelled and deleted.");
}
