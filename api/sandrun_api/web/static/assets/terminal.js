// What a program prints, in a terminal (xterm.js) to look at, and as plain text to read, find and select.

import { make } from "./dom.js";
import { LineCount, Streams } from "./streams.js";
import { FitAddon, Terminal as Xterm } from "./vendor/xterm.js";

const MOST_ROWS = 300_000; // of the terminal, each as wide as it is; it needs about 1 KB for each
const MOST_KEPT = 64 << 20; // characters, to show one of the streams alone
const READ_ALOUD = 200; // last lines of the plain text while the terminal is shown
const PIECE = 128 << 10; // characters that the terminal takes at once: smaller ones are slower, larger ones keep the page waiting
const GATHER_MS = 16;
const BLOCK = 20_000; // characters of plain text that are laid out together
const REFRESH_MS = 200; // of the plain text
const FEWEST_COLUMNS = 20;
const ANSI = ["black", "red", "green", "yellow", "blue", "magenta", "cyan", "white"];
// Modes of a screen that is not one of lines, of a mouse, of pasting: nobody here answers to them.
const ALLOWED_MODES = new Set([7, 25]);
const CLEAR = /\x1b\[2J/g;
const PAGE_KEYS = { PageUp: [-1, "page"], PageDown: [1, "page"], ArrowUp: [-1, "line"], ArrowDown: [1, "line"], Home: [-1, "end"], End: [1, "end"] };

/** Shows text in `host`, and as plain text in `reader`; `dropped(lines)` is told how many are not shown any more. */
export class Terminal {
  constructor(host, reader, dropped) {
    this._host = host;
    this._reader = reader;
    this._tellDropped = dropped;
    this._filter = "both";
    this._screen = host.appendChild(make("div", { "aria-hidden": "true" })); // the plain text is for screen readers
    this._xterm = new Xterm({
      allowProposedApi: false, allowTransparency: false, convertEol: true, cursorBlink: false, cursorInactiveStyle: "none", disableStdin: true,
      drawBoldTextInBrightColors: false,
      fontFamily: getComputedStyle(host).fontFamily, fontSize: parseFloat(getComputedStyle(host).fontSize), lineHeight: 1.25,
      linkHandler: { activate() {} }, minimumContrastRatio: 4.5, scrollback: MOST_ROWS, theme: colours(host),
    });
    this._fit = new FitAddon();
    this._xterm.loadAddon(this._fit);
    this._restrict();
    this._xterm.open(this._screen);
    Object.assign(this._xterm.textarea, { disabled: true, tabIndex: -1 }); // nothing is typed here; the host has the focus
    new ResizeObserver(() => this._resize()).observe(host);
    this._watchKeys();
    this._watchColours();
    this.clear();
  }

  /** Lines that were ever begun, of both streams. */
  get lines() { return this._count.lines; }

  /** Forget everything. */
  clear() {
    this._chunks = [];
    this._kept = 0;
    this._count = new LineCount();
    this._restart();
  }

  /** More of a stream. */
  write(stream, text) {
    this._count.add(text);
    this._chunks.push([stream, text]);
    this._kept += text.length;
    while (this._kept > MOST_KEPT) this._kept -= this._chunks.shift()[1].length;
    this._host.dataset.empty = "no";
    this._show(stream, text);
  }

  /** Show one of the streams, or both. */
  filter(stream) {
    this._filter = stream;
    this._restart();
    for (const [of, text] of this._chunks) this._show(of, text);
    return this.flush();
  }

  /** Once everything written so far is shown, as text too. */
  async flush() {
    this._give();
    await new Promise((resolve) => { this._xterm.write("", resolve); });
    this._refresh();
  }

  /** Show plain text, all of it, instead of the terminal; or the terminal again. */
  setPlain(isPlain) {
    this._host.hidden = isPlain;
    this._reader.classList.toggle("hidden-text", !isPlain);
    if (isPlain) this._reader.tabIndex = 0;
    else this._reader.removeAttribute("tabindex");
    this._refresh();
  }

  /** Everything in the terminal, as text; at most the last `most` lines. */
  text(most = Infinity) {
    const { active } = this._xterm.buffer;
    const rows = [];
    let taken = 0;
    let end = active.length - 1;
    while (end > active.baseY + active.cursorY && active.getLine(end).translateToString(true) === "") end -= 1;
    for (let row = end; row >= 0 && taken < most; row -= 1) {
      const line = active.getLine(row);
      const goesOn = row < end && active.getLine(row + 1).isWrapped;
      rows.push(line.translateToString(!goesOn) + (row === end || goesOn ? "" : "\n"));
      if (!line.isWrapped) taken += 1;
    }
    return rows.reverse().join("");
  }

  _show(stream, text) {
    if (this._filter !== "both" && this._filter !== stream) return;
    this._shown.add(text);
    // A cleared screen is scrolled away, not lost.
    this._pending += this._streams.merge(stream, text).replace(CLEAR, () => `\x1b[999;1H${"\n".repeat(this._xterm.rows)}\x1b[H`);
    if (this._pending.length >= PIECE) this._give();
    else this._giving ??= setTimeout(() => this._give(), GATHER_MS);
  }

  _give() {
    clearTimeout(this._giving);
    this._giving = null;
    if (this._pending) this._xterm.write(this._pending, () => this._refreshSoon());
    this._pending = "";
  }

  _restart() {
    this._streams = new Streams();
    this._shown = new LineCount();
    this._pending = "";
    this._xterm.write("", () => this._xterm.reset()); // after what it was given before
    this._reader.textContent = "";
    if (this._chunks.length === 0) this._host.dataset.empty = "yes";
    this._tellDropped(0);
  }

  _refreshSoon() {
    this._timer ??= setTimeout(() => this._refresh(), REFRESH_MS);
  }

  _refresh() {
    clearTimeout(this._timer);
    this._timer = null;
    this._reader.replaceChildren(...blocks(this.text(this._host.hidden ? Infinity : READ_ALOUD)));
    const { active } = this._xterm.buffer;
    if (active.length < MOST_ROWS) return;
    let held = 0;
    for (let row = 0; row < active.baseY + active.cursorY; row += 1) held += Number(!active.getLine(row).isWrapped);
    this._tellDropped(Math.max(0, this._shown.lines - held));
  }

  // What is printed can be read and scrolled back, whatever a program says of screens.
  _restrict() {
    const { parser } = this._xterm;
    for (const final of ["h", "l"]) {
      parser.registerCsiHandler({ prefix: "?", final }, (modes) => !modes.every((mode) => ALLOWED_MODES.has(mode)));
    }
    parser.registerCsiHandler({ final: "J" }, ([what]) => what === 3); // forgetting what was scrolled away
    parser.registerCsiHandler({ intermediates: "!", final: "p" }, () => true);
    parser.registerEscHandler({ final: "c" }, () => true);
  }

  _resize() {
    const size = this._fit.proposeDimensions();
    if (size?.cols > 0 && size.rows > 0) this._xterm.resize(Math.max(FEWEST_COLUMNS, size.cols), Math.max(2, size.rows));
  }

  _watchKeys() {
    const host = this._host;
    const xterm = this._xterm;
    host.addEventListener("pointerdown", () => host.focus({ preventScroll: true }));
    host.addEventListener("keydown", (event) => {
      if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "a") {
        xterm.selectAll();
      } else {
        const [direction, by] = (!event.ctrlKey && !event.metaKey && !event.altKey && PAGE_KEYS[event.key]) || [];
        if (!by) return;
        if (by === "page") xterm.scrollPages(direction);
        else if (by === "line") xterm.scrollLines(direction);
        else if (direction < 0) xterm.scrollToTop();
        else xterm.scrollToBottom();
      }
      event.preventDefault();
    });
    document.addEventListener("copy", (event) => {
      if (document.activeElement !== host || !xterm.hasSelection()) return;
      event.clipboardData.setData("text/plain", xterm.getSelection());
      event.preventDefault();
    });
  }

  _watchColours() {
    const apply = () => { this._xterm.options.theme = colours(this._host); };
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", apply);
    new MutationObserver(apply).observe(document.documentElement, { attributeFilter: ["data-theme"] });
  }
}

// The page's custom properties as colours that a script can use: light-dark() is settled where a colour is computed.
function colours(host) {
  const probe = host.appendChild(document.createElement("i"));
  const colour = (name) => {
    probe.style.color = `var(--${name})`;
    return hex(getComputedStyle(probe).color);
  };
  const names = [...ANSI, ...ANSI.map((name) => `bright${name[0].toUpperCase()}${name.slice(1)}`)];
  const theme = Object.fromEntries(names.map((name, index) => [name, colour(`ansi-${index}`)]));
  const ground = colour("sunken");
  Object.assign(theme, {
    foreground: colour("text"), background: ground, cursor: ground, cursorAccent: ground, selectionBackground: colour("code-selection"),
    selectionInactiveBackground: colour("code-selection"),
  });
  probe.remove();
  return theme;
}

// A browser lays out only those blocks that are in sight (content-visibility), which one of 10 MB could not be.
function blocks(text) {
  const made = [];
  for (let start = 0, end; start < text.length; start = end) {
    const at = text.indexOf("\n", start + BLOCK);
    end = at < 0 ? text.length : at + 1;
    made.push(make("div", { class: "block-of-text" }, text.slice(start, end)));
  }
  return made;
}

function hex(rgb) {
  return `#${rgb.match(/\d+(?:\.\d+)?/g).slice(0, 3).map((part) => Math.round(Number(part)).toString(16).padStart(2, "0")).join("")}`;
}
