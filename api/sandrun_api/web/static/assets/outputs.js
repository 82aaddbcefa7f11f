// The files that a job left, shown where they can be: images, tables, text; each to be downloaded.

import { parseTable } from "./csv.js";
import { byId, make } from "./dom.js";
import { count, size } from "./words.js";

const MOST_LISTED = 500;
const MOST_SHOWN = 20; // of which more than the name is shown
const IMAGE_BYTES = 20 << 20;
const PREVIEW_BYTES = 128 << 10;
const ROWS = 100;
const COLUMNS = 30;
const IMAGES = new Set(["image/png", "image/jpeg", "image/gif", "image/webp", "image/svg+xml", "image/avif", "image/bmp"]);
const SEPARATORS = { "text/csv": ",", "text/tab-separated-values": "\t" };
const TEXTS = /^text\/|^application\/(json|x-ndjson|xml|yaml|toml|x-sh|javascript)$|\+(json|xml)$/;
const NUMBER = /^\s*-?[\d.,]+(e[+-]?\d+)?\s*%?\s*$/i;

/** Shows the outputs of a finished job. Throws ServerError. */
export async function showOutputs(server, jobId) {
  const [{ details, truncated }, { expires_at: expiresAt }] =
    await Promise.all([server.json("outputs", jobId), server.json("status", jobId)]);
  byId("results").hidden = details.length === 0;
  if (details.length === 0) return 0;
  const bytes = details.reduce((sum, file) => sum + file.size_bytes, 0);
  const until = expiresAt ? `, kept until ${new Date(expiresAt).toLocaleTimeString([], { timeStyle: "short" })}` : "";
  byId("results-note").textContent = `${count(details.length, "file")}, ${size(bytes)}${until}. `
    + `Downloading all of them deletes the job.${truncated ? " Some files were not kept: too many or too large." : ""}`;
  byId("download-all").href = server.url("download", jobId);
  const list = byId("results-list");
  list.replaceChildren();
  let shown = 0;
  for (const file of details.slice(0, MOST_LISTED)) {
    const url = server.fileUrl(jobId, file.path);
    const link = make("a", { href: url, download: file.path.split("/").at(-1) }, file.path);
    const figure = make("figure", { class: "result" }, make("figcaption", {}, link, make("span", { class: "muted" }, size(file.size_bytes))));
    list.append(figure);
    if (shown < MOST_SHOWN && (await preview(server, file, url, figure))) shown += 1;
  }
  if (details.length > MOST_LISTED) list.append(make("p", {}, `and ${count(details.length - MOST_LISTED, "more file")}`));
  return details.length;
}

/** Forget the outputs that are shown. */
export function clearOutputs() {
  byId("results").hidden = true;
  byId("results-list").replaceChildren();
}

async function preview(server, file, url, figure) {
  const type = file.mime_type;
  if (IMAGES.has(type) && file.size_bytes <= IMAGE_BYTES) {
    figure.append(make("img", { src: url, alt: `The image ${file.path}`, loading: "lazy" }));
    return true;
  }
  if (!TEXTS.test(type) || file.size_bytes === 0) return false;
  const { text, cut } = await beginning(server, url, file.size_bytes);
  const label = `Contents of ${file.path}`;
  const shown = SEPARATORS[type] ? table(text, SEPARATORS[type], cut) : make("pre", {}, text);
  figure.append(make("div", { class: "scroll", tabIndex: 0, role: "group", "aria-label": label }, shown));
  if (cut || shown.dataset.more) figure.append(make("p", { class: "muted small" }, "Only the beginning is shown; the download has the whole file."));
  return true;
}

async function beginning(server, url, bytes) {
  const cut = bytes > PREVIEW_BYTES;
  const answer = await server.fetch(url, cut ? { headers: { Range: `bytes=0-${PREVIEW_BYTES - 1}` } } : {});
  return { text: new TextDecoder().decode(await answer.arrayBuffer()), cut };
}

function table(text, separator, cut) {
  const rows = parseTable(text, separator, ROWS + 2, cut);
  const [head = [], ...body] = rows;
  const cells = (row, name) => row.slice(0, COLUMNS).map((value) => make(name, NUMBER.test(value) && name === "td" ? { class: "number" } : {}, value));
  const headings = cells(head, "th");
  for (const heading of headings) heading.scope = "col";
  const element = make("table", {}, make("thead", {}, make("tr", {}, ...headings)));
  element.append(make("tbody", {}, ...body.slice(0, ROWS).map((row) => make("tr", {}, ...cells(row, "td")))));
  if (body.length > ROWS || head.length > COLUMNS) element.dataset.more = "yes";
  return element;
}
