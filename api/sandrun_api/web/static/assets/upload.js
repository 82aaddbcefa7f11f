// Sending a body with news of how far it is, which fetch does not give; and the bar that shows it.

import { byId } from "./dom.js";
import { transferred } from "./words.js";

/** A fetch that calls progress(sent, total), in bytes, as the body leaves; rejects as fetch does. */
export function sendWithProgress(url, { method, headers, body, signal }, progress) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    const abort = () => request.abort();
    request.open(method, url);
    for (const [name, value] of Object.entries(headers)) request.setRequestHeader(name, value);
    request.upload.onprogress = ({ loaded, total }) => progress(loaded, total);
    request.onload = () => resolve(new Response(request.response, { status: request.status }));
    request.onerror = () => reject(new TypeError("the connection broke"));
    request.onabort = () => reject(new DOMException("the upload was broken off", "AbortError"));
    request.onloadend = () => signal.removeEventListener("abort", abort);
    signal.addEventListener("abort", abort);
    request.send(body);
  });
}

/** The bar of an upload of a number of bytes; `tell` has the functions sent(), when all has left, and again(). */
export class UploadBar {
  constructor(bytes, tell) {
    this._tell = tell;
    this._controller = new AbortController();
    this.signal = this._controller.signal;
    this._since = performance.now();
    this._before = 0;
    this.isSent = false;
    this.show(0, bytes);
  }

  /** Show how far it is: less than before, when the connection broke and all of it is sent again. */
  show(sent, total) {
    if (sent < this._before) {
      this._since = performance.now();
      this._tell.again();
    }
    this._before = sent;
    this.isSent = sent === total;
    if (this.isSent) this._tell.sent();
    byId("upload").hidden = this.isSent;
    byId("upload-bar").value = sent / total;
    byId("upload-text").textContent = transferred(sent, total, (performance.now() - this._since) / 1000);
  }

  /** Break it off, unless the server may have all of it: then its answer is needed to delete the job. */
  abort() {
    if (!this.isSent) this._controller.abort();
  }

  /** Take it away. */
  end() { byId("upload").hidden = true; }
}
