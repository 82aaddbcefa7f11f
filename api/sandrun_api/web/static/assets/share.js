// A program in the fragment of a link. Fragments are never sent to a server: only who has the link can read it.

import { LINK_NAMES } from "./form.js";

const MOST_BYTES = 1 << 20; // of an unpacked link: a short one may not fill the memory
const LONGEST_LINK = 32_000; // characters; some programs that pass links on cut longer ones

/** The fragment, without its "#", that holds these fields. Throws RangeError for more than a link can carry. */
export async function encodeLink(fields) {
  const bytes = new TextEncoder().encode(JSON.stringify(fields));
  const text = globalThis.CompressionStream
    ? `z=${base64(await through(bytes, new CompressionStream("deflate-raw")))}`
    : `j=${base64(bytes)}`;
  if (text.length > LONGEST_LINK) throw new RangeError("This program, with what goes with it, is too long for a link.");
  return text;
}

/** The fields in a fragment; null if it holds none. Throws TypeError or SyntaxError for a damaged one. */
export async function decodeLink(fragment) {
  const match = /^#?([zj])=([\w-]*)$/.exec(fragment);
  if (!match) return null;
  let bytes = fromBase64(match[2]);
  if (match[1] === "z") bytes = await through(bytes, new DecompressionStream("deflate-raw"));
  const fields = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  if (fields === null || typeof fields !== "object") throw new TypeError("not the fields of a program");
  // Who wrote the link is not known: only text is taken, and only under the names the page knows.
  return Object.fromEntries(LINK_NAMES.filter((name) => typeof fields[name] === "string").map((name) => [name, fields[name]]));
}

async function through(bytes, transform) {
  const reader = new Blob([bytes]).stream().pipeThrough(transform).getReader();
  const pieces = [];
  let total = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return new Uint8Array(await new Blob(pieces).arrayBuffer());
    total += value.length;
    if (total > MOST_BYTES) {
      await reader.cancel();
      throw new TypeError("the link holds too much");
    }
    pieces.push(value);
  }
}

function base64(bytes) {
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return btoa(text).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

function fromBase64(text) {
  return Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (letter) => letter.charCodeAt(0));
}
