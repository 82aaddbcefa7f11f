// What a program prints, line by line: bounded, coloured, with the streams told apart.

import { AnsiReader } from "./ansi.js";
import { make } from "./dom.js";

const MOST_LINES = 5000; // in the page; the server has the rest
const LONGEST_LINE = 4000; // characters; the rest goes on in a new one
const MOST_AT_ONCE = 200_000; // characters between two pictures on the screen

/** Shows text in an element; `dropped` is told how many lines at the beginning are not shown any more. */
export class Terminal {
  constructor(element, dropped) {
    this._element = element;
    this._tellDropped = dropped;
    this.clear();
  }

  /** Forget everything. */
  clear() {
    this._readers = { stdout: new AnsiReader(), stderr: new AnsiReader() };
    this._waiting = [];
    this._cells = []; // of the last line: [character, stream, style]
    this._column = 0;
    this._line = null;
    this.lines = 0; // ever begun
    this._dropped = 0;
    this._element.replaceChildren();
    this._tellDropped(0);
  }

  /** More of a stream; it is shown with the next picture on the screen. */
  write(stream, text) {
    if (this._waiting.length === 0) this._schedule();
    this._waiting.push([stream, text]);
  }

  /** Show what is still waiting. */
  flush() {
    while (this._waiting.length > 0) this._work();
  }

  _schedule() {
    const work = () => {
      this._work();
      if (this._waiting.length > 0) this._schedule();
    };
    if (document.hidden) setTimeout(work, 100); // no pictures are made of a hidden page
    else requestAnimationFrame(work);
  }

  _work() {
    const element = this._element;
    const atEnd = element.scrollHeight - element.scrollTop - element.clientHeight < 40;
    let characters = 0;
    let taken = 0;
    for (const [stream, text] of this._waiting) {
      for (const part of this._readers[stream].read(text)) this._apply(stream, part);
      taken += 1;
      characters += text.length;
      if (characters > MOST_AT_ONCE) break;
    }
    this._waiting.splice(0, taken);
    this._draw();
    this._trim();
    if (atEnd) element.scrollTop = element.scrollHeight;
  }

  _apply(stream, part) {
    if (part.column === 0) this._column = 0;
    else if (part.column === "back") this._column = Math.max(0, this._column - 1);
    else if (part.erase !== undefined) this._erase(part.erase);
    else {
      for (const character of part.text) {
        if (character === "\n") { this._newLine(); continue; }
        if (this._column >= LONGEST_LINE) this._newLine();
        this._cells[this._column] = [character, stream, part.style];
        this._column += 1;
      }
    }
  }

  _erase(what) {
    if (what === 0) this._cells.length = Math.min(this._cells.length, this._column);
    else this._cells.fill([" ", "stdout", ""], 0, what === 1 ? this._column : undefined);
  }

  _newLine() {
    this._draw();
    if (!this._line) this._begin();
    this._line = null;
    this._cells = [];
    this._column = 0;
    if (this._element.childElementCount > 2 * MOST_LINES) this._trim(); // a great many at once
  }

  _begin() {
    this._line = make("div", { class: "line" });
    this._element.append(this._line);
    this.lines += 1;
  }

  _draw() {
    if (this._cells.length === 0) {
      this._line?.replaceChildren();
      return;
    }
    if (!this._line) this._begin();
    const spans = [];
    const streams = new Set();
    let text = "";
    for (let index = 0; index < this._cells.length; index += 1) {
      const [character, stream, style] = this._cells[index];
      const next = this._cells[index + 1];
      text += character;
      streams.add(stream);
      if (next && next[1] === stream && next[2] === style) continue;
      spans.push(span(text, stream, style));
      text = "";
    }
    this._line.className = `line${streams.has("stderr") ? " has-stderr" : ""}`;
    if (streams.size === 1) this._line.classList.add(`only-${[...streams][0]}`);
    this._line.replaceChildren(...spans);
  }

  _trim() {
    const over = this._element.childElementCount - MOST_LINES;
    if (over <= 0) return;
    for (let left = over; left > 0; left -= 1) this._element.firstElementChild.remove();
    this._dropped += over;
    this._tellDropped(this._dropped);
  }
}

function span(text, stream, style) {
  const element = make("span", { class: stream }, text);
  for (const name of style.split(" ").filter(Boolean)) {
    const colour = /^(fg|bg):(.*)$/.exec(name);
    element.classList.add(colour ? `${colour[1]}-exact` : name);
    // Through the object model, which a Content-Security-Policy without inline styles allows.
    if (colour) element.style.setProperty(`--exact-${colour[1]}`, `rgb(${colour[2]})`);
  }
  return element;
}
