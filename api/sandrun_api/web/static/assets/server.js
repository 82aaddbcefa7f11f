// The server: its address, its answers, its errors.

import { sendWithProgress } from "./upload.js";

const TRIES = 3;

/** An answer that is an error; `retryAfter` is seconds or null, `status` 0 when there was no answer at all; `errors` name fields. */
export class ServerError extends Error {
  constructor(status, title, reason, { retryAfter = null, errors = [] } = {}) {
    super(reason);
    this.status = status;
    this.title = title;
    this.retryAfter = retryAfter;
    this.errors = errors;
  }
}

/** One server; `address` ends with a slash. */
export class Server {
  constructor(address) {
    this.address = new URL(address, document.baseURI).href.replace(/\/*$/, "/");
  }

  /** The address of a path below the server; segments are encoded. */
  url(...segments) {
    return this.address + segments.map(encodeURIComponent).join("/");
  }

  /** The address of a file that a job left. */
  fileUrl(jobId, path) {
    return this.url("download", jobId, ...path.split("/"));
  }

  /** A socket that tells what a job prints, after the sequence `offset`. */
  socket(jobId, offset) {
    const url = new URL(this.url("logs", jobId, "stream"));
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    url.search = new URLSearchParams({ format: "json", offset }).toString();
    return new WebSocket(url);
  }

  /** The same as server-sent events. */
  events(jobId, offset) {
    return new EventSource(`${this.url("logs", jobId, "events")}?${new URLSearchParams({ offset })}`);
  }

  /** A fetch, or what sends like it, that throws ServerError for everything but success. */
  async fetch(url, options = {}, send = fetch) {
    let answer;
    try {
      answer = await send(url, { credentials: "omit", referrerPolicy: "no-referrer", ...options });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ServerError(0, "No answer", `The server at ${this.address} cannot be reached.`);
    }
    if (answer.ok) return answer;
    const body = await answer.json().catch(() => ({}));
    const title = body.error ?? `Error ${answer.status}`;
    throw new ServerError(answer.status, title, body.reason ?? "The server did not say why.", {
      retryAfter: body.retry_after, errors: body.errors,
    });
  }

  /** The JSON at a path. */
  async json(...segments) {
    return (await this.fetch(this.url(...segments), { headers: { Accept: "application/json" } })).json();
  }

  /**
   * Submit files ([path, Blob]) with a manifest; the answer holds the job's id. A lost connection is tried again.
   * With a bar the upload is shown, and can be broken off.
   */
  async submit(manifest, files, bar = null) {
    const form = new FormData();
    for (const [path, blob] of files) form.append("files", blob, path);
    form.append("manifest", new Blob([JSON.stringify(manifest)], { type: "application/json" }));
    // The same key and upload give the same job, should only the answer have been lost.
    const key = Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
    const options = { method: "POST", body: form, headers: { Accept: "application/json", "Idempotency-Key": key } };
    const send = bar ? (url, given) => sendWithProgress(url, { ...given, signal: bar.signal }, (...bytes) => bar.show(...bytes)) : fetch;
    for (let left = TRIES - 1; ; left -= 1) {
      try {
        return await (await this.fetch(this.url("submit"), options, send)).json();
      } catch (error) {
        if (error.status !== 0 || left === 0) throw error;
      }
    }
  }

  /** What /logs says of all that a job printed, without the text of it: `offset` is the last sequence. */
  async logs(jobId, offset) {
    return (await this.fetch(`${this.url("logs", jobId)}?${new URLSearchParams({ offset })}`, { headers: { Accept: "application/json" } })).json();
  }

  /** Cancel a job that runs, and delete everything of it; one that is gone already is no error. */
  async remove(jobId) {
    try {
      await this.fetch(this.url("jobs", jobId), { method: "DELETE" });
    } catch (error) {
      if (error.status !== 404) throw error;
    }
  }
}
