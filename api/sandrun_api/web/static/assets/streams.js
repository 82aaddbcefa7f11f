// Two streams in one terminal: each keeps its own colours and styles (SGR, ECMA-48 8.3.117), and stderr looks like stderr.

const LONGEST_SEQUENCE = 256; // characters; longer ones are no sequences
const RENDITION = /\x1b\[([0-9;:]*)m/g;
const UNFINISHED = /\x1b(?:\[[0-?]*[ -/]*|[\]PX^_][^\x07\x1b]*)?$/;
const BASE = { stdout: "", stderr: "\x1b[3;33m" }; // italic too: not by its colour alone
const RESET = /(?:^|[;])0*$/; // the last parameter is 0 or missing
const STARTS = { 23: "\x1b[3m", 39: "\x1b[33m" }; // what ends a part of the look of stderr, and what brings it back

/** Merges chunks of both streams into what a terminal is to be written. */
export class Streams {
  constructor() {
    this._now = "stdout";
    this._states = { stdout: state(), stderr: state() };
  }

  /** The text to write for one more chunk of a stream; a sequence may come in parts. */
  merge(stream, chunk) {
    const own = this._states[stream];
    let text = own.rest + chunk;
    own.rest = "";
    const cut = text.lastIndexOf("\x1b");
    if (cut >= 0 && text.length - cut < LONGEST_SEQUENCE && UNFINISHED.test(text.slice(cut))) {
      own.rest = text.slice(cut);
      text = text.slice(0, cut);
    }
    if (!text) return "";
    const start = this._now === stream ? "" : `\x1b[m${BASE[stream]}${own.set}`;
    this._now = stream;
    if (!text.includes("\x1b[")) return start + text;
    const written = text.replace(RENDITION, (sequence, parameters) => {
      const isReset = RESET.test(parameters);
      // What was set stays set until a reset; of a program that never resets only the last is kept.
      own.set = isReset ? "" : (own.set + sequence).slice(-LONGEST_SEQUENCE).replace(/^[^\x1b]+/, "");
      if (stream === "stdout") return sequence;
      return sequence + (isReset ? BASE.stderr : STARTS[parameters] ?? "");
    });
    return start + written;
  }
}

function state() {
  return { rest: "", set: "" };
}

/** How many lines the text begins, when the one before ended with a line feed or not. */
export class LineCount {
  constructor() {
    this.lines = 0;
    this._open = false;
  }

  add(text) {
    for (let at = -1; (at = text.indexOf("\n", at + 1)) >= 0;) this.lines += 1;
    if (text) {
      const before = this._open;
      this._open = !text.endsWith("\n");
      this.lines += Number(this._open) - Number(before);
    }
  }
}
