// ANSI escape sequences (ECMA-48): colours and styles, and what moves within a line. Everything else is left out.

const LONGEST_SEQUENCE = 256; // characters; longer ones are no sequences
const SEQUENCE = /^\x1b(?:\[([0-?]*)[ -/]*([@-~])|\][^\x07\x1b]*(?:\x07|\x1b\\)|[PX^_][^\x1b]*\x1b\\|[ -/]*[0-Z\\^-~])/;
const STYLES = { 1: "bold", 2: "dim", 3: "italic", 4: "underline", 7: "inverse", 9: "strike" };
const ENDS = { 21: ["bold"], 22: ["bold", "dim"], 23: ["italic"], 24: ["underline"], 27: ["inverse"], 29: ["strike"] };
const LEVELS = [0, 95, 135, 175, 215, 255];

/** Reads one stream; a sequence may come in parts. */
export class AnsiReader {
  constructor() {
    this._rest = "";
    this._styles = new Set();
    this._colours = { fg: "", bg: "" };
  }

  /** What the text says, in order: {text, style}, {column} (0 or "back" by one) or {erase: 0, 1 or 2}. */
  * read(text) {
    let left = this._rest + text;
    this._rest = "";
    while (left) {
      const plain = /^[^\x00-\x08\x0b-\x1f\x7f\x9b]+/.exec(left)?.[0]; // tab and line feed are text
      if (plain) {
        yield { text: plain, style: this._style() };
        left = left.slice(plain.length);
        continue;
      }
      if (left[0] === "\r") yield { column: 0 };
      else if (left[0] === "\b") yield { column: "back" };
      else if (left[0] === "\x1b") {
        const match = SEQUENCE.exec(left);
        if (!match && left.length < LONGEST_SEQUENCE) {
          this._rest = left;
          return;
        }
        if (match) {
          left = left.slice(match[0].length);
          if (match[2] === "m") this._render(match[1]);
          else if (match[2] === "K") yield { erase: Number(match[1]) || 0 };
          else if (match[2] === "G" && Number(match[1] || 1) === 1) yield { column: 0 };
          continue;
        }
      }
      left = left.slice(1);
    }
  }

  _style() {
    return [...this._styles, this._colours.fg, this._colours.bg].filter(Boolean).join(" ");
  }

  _render(parameters) {
    const codes = parameters.split(/[;:]/).map((text) => Number(text) || 0);
    for (let index = 0; index < codes.length; index += 1) {
      const code = codes[index];
      if (code === 0) { this._styles.clear(); this._colours = { fg: "", bg: "" }; }
      else if (STYLES[code]) this._styles.add(STYLES[code]);
      else if (ENDS[code]) for (const name of ENDS[code]) this._styles.delete(name);
      else if (code === 39) this._colours.fg = "";
      else if (code === 49) this._colours.bg = "";
      else if (code === 38 || code === 48) {
        const ground = code === 38 ? "fg" : "bg";
        if (codes[index + 1] === 5) { this._colours[ground] = indexed(ground, codes[index + 2]); index += 2; }
        else if (codes[index + 1] === 2) { this._colours[ground] = exact(ground, codes.slice(index + 2, index + 5)); index += 4; }
      } else {
        for (const [ground, first, offset] of [["fg", 30, 0], ["bg", 40, 0], ["fg", 90, 8], ["bg", 100, 8]]) {
          if (code >= first && code < first + 8) this._colours[ground] = `${ground}-${code - first + offset}`;
        }
      }
    }
  }
}

function indexed(ground, number = 0) {
  if (number < 16) return `${ground}-${number}`;
  if (number > 255) return "";
  if (number >= 232) return exact(ground, Array(3).fill(8 + 10 * (number - 232)));
  const cube = number - 16;
  return exact(ground, [Math.floor(cube / 36), Math.floor(cube / 6) % 6, cube % 6].map((level) => LEVELS[level]));
}

function exact(ground, parts) {
  const [red, green, blue] = [0, 1, 2].map((index) => Math.min(255, parts[index] ?? 0));
  return `${ground}:${red},${green},${blue}`;
}
