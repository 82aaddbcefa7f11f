// What the caller may still use, as a meter and in words.

import { byId } from "./dom.js";
import { count, duration } from "./words.js";

const REFRESH_MS = 10_000;

/** Shows the quota of this address; asks again while it changes and somebody looks. */
export class Quota {
  constructor(server) {
    this._server = server;
    this._changes = false;
    setInterval(() => { if (this._changes && !document.hidden) this.refresh(); }, REFRESH_MS);
  }

  /** Ask and show. A server that does not answer shows nothing here: a run will tell. */
  async refresh() {
    let quota;
    try {
      quota = (await this._server.json("stats")).your_quota;
    } catch {
      byId("quota").hidden = true;
      this._changes = false;
      return;
    }
    const { used, limit } = quota;
    this._changes = used > 0 || quota.active_jobs > 0 || quota.queued_jobs > 0;
    const meter = byId("quota-cpu");
    meter.hidden = limit === null;
    byId("quota-cpu-label").hidden = limit === null;
    if (limit !== null) {
      Object.assign(meter, { max: limit, high: 0.75 * limit, optimum: 0, value: Math.min(used, limit) });
    }
    const parts = [];
    if (limit !== null) parts.push(`${duration(used)} of ${duration(limit)} this minute`);
    if (quota.max_jobs_per_hour !== null) parts.push(`${count(quota.jobs_this_hour, "run")} of ${quota.max_jobs_per_hour} this hour`);
    byId("quota-text").textContent = parts.join(" · ");
    byId("quota").hidden = parts.length === 0;
  }
}
