// One job, followed to its end: where it waits, what it prints, how it ended.

import { ServerError } from "./server.js";

const FIRST_PAUSE_MS = 250;
const LONGEST_PAUSE_MS = 8000;
const MOST_FAILURES = 10; // in a row
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
    this._tell = tell;
    this._sequence = 0;
    this._ended = false;
    this._isRunning = false;
  }

  /** The last status, once everything printed was told. Throws ServerError (404) when the job is deleted. */
  async follow() {
    this._watchQueue();
    try {
      for (let failures = 0; ; failures += 1) {
        const before = this._sequence;
        const { status, code } = await this._listen();
        if (status) return status;
        if (code === UNKNOWN_JOB || this.removed) throw gone();
        if (code === BAD_OFFSET) throw new ServerError(400, "Output lost", "The server does not have this job's output any more.");
        if (this._sequence > before) failures = 0;
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
    this._socket?.close();
  }

  _listen() {
    return new Promise((resolve) => {
      let status = null;
      const socket = this.server.socket(this.id, this._sequence);
      this._socket = socket;
      socket.onmessage = ({ data }) => {
        const message = JSON.parse(data);
        if (message.type === "finished") {
          status = message;
        } else if (message.type === "output") {
          this._sequence = message.sequence;
          this._runs();
          this._tell.output(message.stream, message.data);
        }
      };
      socket.onopen = () => { if (this._isRunning) this._tell.running(); };
      socket.onclose = ({ code }) => resolve({ status, code });
    });
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
