// The parts of the web page that need no browser. tests/repo/test_web_page.py runs this: node --test
import assert from "node:assert/strict";
import { readFile, mkdtemp, cp, writeFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";

const assets = new URL("../../api/sandrun_api/web/static/assets/", import.meta.url);
let folder;
const load = (name) => import(`file://${folder}/${name}`);

before(async () => { // a package.json beside them says that they are modules
  folder = await mkdtemp(join(tmpdir(), "sandrun-web-"));
  const names = ["ansi", "arguments", "csv", "dom", "faults", "form", "languages", "packages", "share", "variables", "words"];
  for (const name of names.map((bare) => `${bare}.js`)) {
    await cp(new URL(name, assets), join(folder, name));
  }
  await writeFile(join(folder, "package.json"), '{"type": "module"}');
});
after(() => rm(folder, { recursive: true }));

test("arguments are split as a shell splits words", async () => {
  const { splitArguments } = await load("arguments.js");
  const cases = {
    "": [], "  a  b ": ["a", "b"], "'a b' \"c d\"": ["a b", "c d"], "a\\ b '' \"\"": ["a b", "", ""],
    "--x='1 2'\"3\"": ["--x=1 23"], '"a\\"b\\c"': ['a"b\\c'], "'a\\'": ["a\\"], "a\\": ["a\\"],
  };
  for (const [line, words] of Object.entries(cases)) assert.deepEqual(splitArguments(line), words, line);
  assert.throws(() => splitArguments("a 'b"), SyntaxError);
});

test("variables, as people write them", async () => {
  const { readVariables } = await load("variables.js");
  const cases = {
    "": {}, "\n # no\nA=1\n\nexport B_2= x = 'y' \nC=": { A: "1", B_2: " x = 'y' ", C: "" }, "__proto__=x": { ["__proto__"]: "x" },
  };
  for (const [text, variables] of Object.entries(cases)) assert.deepEqual(readVariables(text), variables, text);
  for (const [text, reason] of Object.entries({
    "A=1\nB": /^SyntaxError: Line 2 .* NAME=value/, "=1": /Line 1 .* a name has/, "A =1": /a name has/, "1A=": /a name has/, "A=\n\nA=": /Line 3 .* sets A again/,
  })) assert.throws(() => readVariables(text), (error) => reason.test(String(error)), text);
});

test("packages, as the language has them", async () => {
  const { namesPackages, packagesFileOf, packagesText } = await load("packages.js");
  assert.deepEqual(["python3", "bash", "node", "ruby"].map(packagesFileOf), ["requirements.txt", "requirements.txt", "package.json", "Gemfile"]);
  assert.equal(packagesText("six\n--hash x\n\n", "python3"), "six\n--hash x\n");
  assert.equal(packagesText("gem 'x'", "ruby"), "gem 'x'\n");
  const { dependencies } = JSON.parse(packagesText("# all\nleft-pad\n\n @a/b@^1.2 \nc@1.0.0", "node"));
  assert.deepEqual(dependencies, { "left-pad": "latest", "@a/b": "^1.2", c: "1.0.0" });
  assert.equal(packagesText(' {"dependencies": {}}', "node"), ' {"dependencies": {}}');
  for (const bad of ["{", "a b", "@a", "a@"]) assert.throws(() => packagesText(bad, "node"), SyntaxError, bad);
  const paths = ["requirements.txt", "x/requirements-dev.txt", "a/dev-requirements.txt", "x/package.json", "Gemfile", "notes.txt", "package.json5", "Gemfile.lock"];
  assert.deepEqual(paths.filter(namesPackages), paths.slice(0, 5));
});

test("faults of a manifest are told at the fields that set it", async () => {
  const { faultsOf } = await load("faults.js");
  const faults = faultsOf([
    { pointer: "/env/A~1B", detail: "one" }, { pointer: "/requirements", detail: "two" }, { pointer: "/env", detail: "three" },
    { pointer: "/entrypoints", detail: "not here" }, { pointer: "", detail: "nowhere" },
  ]);
  assert.deepEqual(faults.map(({ field, message }) => [field, message]), [["variables", "one; three"], ["packages", "two"]]);
  // Whatever the page sets of a manifest has its field.
  const page = await readFile(new URL("../index.html", assets), "utf8");
  const source = await readFile(new URL("../../api/sandrun_api/jobs/manifest.py", import.meta.url), "utf8");
  const names = [.../class JobOptions.*?\n\n\n(?=def )/s.exec(source)[0].matchAll(/^ {4}(\w+): /gm)].map(([, name]) => name);
  assert.ok(names.length > 10);
  for (const name of names.filter((each) => each !== "encrypt_to")) {
    const [fault] = faultsOf([{ pointer: `/${name}`, detail: "x" }]);
    assert.ok(page.includes(`id="${fault?.field}"`), name);
  }
});

test("tables", async () => {
  const { parseTable } = await load("csv.js");
  assert.deepEqual(parseTable('\ufeffa,b\r\n"1,""2""\n",\n', ",", 9), [["a", "b"], ['1,"2"\n', ""]]);
  assert.deepEqual(parseTable("a\tb\nc", "\t", 9), [["a", "b"], ["c"]]);
  assert.deepEqual(parseTable("a\nb", ",", 9, true), [["a"]]);
  assert.deepEqual(parseTable("a\nb\nc\n", ",", 2), [["a"], ["b"]]);
  assert.deepEqual(parseTable("", ",", 2), []);
});

test("colours and what moves within a line", async () => {
  const { AnsiReader } = await load("ansi.js");
  const all = (...texts) => { const reader = new AnsiReader(); return texts.flatMap((text) => [...reader.read(text)]); };
  assert.deepEqual(all("a\x1b[1;31mb\x1b[0mc"), [
    { text: "a", style: "" }, { text: "b", style: "bold fg-1" }, { text: "c", style: "" },
  ]);
  assert.deepEqual(all("\x1b[3", "1mx"), [{ text: "x", style: "fg-1" }]); // cut in the middle
  assert.deepEqual(all("\x1b[91;104mx\x1b[39;49my"), [{ text: "x", style: "fg-9 bg-12" }, { text: "y", style: "" }]);
  assert.deepEqual(all("\x1b[38;5;208mx\x1b[48;2;1;2;300my").map(({ style }) => style), ["fg:255,135,0", "fg:255,135,0 bg:1,2,255"]);
  assert.deepEqual(all("\x1b[38;5;244;3mx"), [{ text: "x", style: "italic fg:128,128,128" }]);
  assert.deepEqual(all("1\r2\b\x1b[K\x1b[2K"), [
    { text: "1", style: "" }, { column: 0 }, { text: "2", style: "" }, { column: "back" }, { erase: 0 }, { erase: 2 },
  ]);
  // Links, titles, movements and unknown things leave the text alone.
  assert.deepEqual(all("\x1b]8;;x\x07a\x1b]8;;\x1b\\\x1b[5A\x1b(B\x07\x00b").map(({ text }) => text).join(""), "ab");
  assert.deepEqual(all(`\x1b]${"x".repeat(300)}`).map(({ text }) => text.length), [301]); // no end in sight
});

test("links hold only what they may, and come back as they went", async () => {
  const { decodeLink, encodeLink } = await load("share.js");
  const fields = { code: "print('ä ✓')\n".repeat(50), language: "python3" };
  const link = await encodeLink(fields);
  assert.match(link, /^z=[\w-]+$/);
  assert.ok(link.length < 120);
  assert.deepEqual(await decodeLink(`#${link}`), fields);
  const own = globalThis.CompressionStream;
  try {
    delete globalThis.CompressionStream;
    assert.deepEqual(await decodeLink(await encodeLink(fields)), fields);
  } finally {
    globalThis.CompressionStream = own;
  }
  assert.equal(await decodeLink(""), null);
  assert.equal(await decodeLink("#editor-section"), null);
  assert.deepEqual(await decodeLink(await encodeLink({ code: "x", server: "https://example.org", stdin: 7 })), { code: "x" });
  const more = { code: "x", variables: "A=1", packages: "six", keep: "a/", cpu: "3", fresh: "yes", batch: "yes", gpu: "yes" };
  assert.deepEqual(await decodeLink(await encodeLink(more)), more);
  for (const bad of ["#z=AAAA", "#j=AAAA", `#${await encodeLink(null)}`, `#${link.slice(0, -4)}`]) await assert.rejects(decodeLink(bad), bad);
  const bomb = await encodeLink({ code: "x".repeat((1 << 20) + 1) });
  assert.ok(bomb.length < 4000);
  await assert.rejects(decodeLink(bomb), /too much/);
  const noise = Array.from({ length: 60_000 }, (_, index) => String.fromCharCode(33 + ((index * index * 7919) % 90))).join("");
  await assert.rejects(encodeLink({ code: Buffer.from(noise).toString("base64") + crypto.getRandomValues(new Uint8Array(50_000)) }), RangeError);
});

test("numbers and verdicts in words", async () => {
  const { count, duration, size, transferred, verdict } = await load("words.js");
  assert.deepEqual([0, 1, 1023, 1536, 5 << 20, 250 << 20].map(size), ["0 bytes", "1 byte", "1023 bytes", "1.5 KB", "5 MB", "250 MB"]);
  assert.deepEqual([0.034, 5, 75, 300, 3600, 4800].map(duration), ["0.03 s", "5 s", "75 s", "5 min", "1 h", "1 h 20 min"]);
  assert.deepEqual([transferred(0, 3 << 20, 9), transferred(1 << 20, 3 << 20, 1.9), transferred(1 << 20, 3 << 20, 2.1), transferred(5, 5, 9)], [
    "0 bytes of 3 MB", "1 MB of 3 MB", "1 MB of 3 MB, about 5 s left", "5 bytes of 5 bytes",
  ]);
  assert.deepEqual([count(1, "file"), count(2, "file")], ["1 file", "2 files"]);
  const limits = { timeout: 300, memory_mb: 512, log_mb: 10, disk_mb: 100, cpu_seconds: 4 };
  const say = (name, more = {}) => verdict({ verdict: name, limits, ...more }).text;
  assert.equal(say("memory_limit"), "Ran out of memory: 512 MB.");
  assert.equal(say("wall_time_limit"), "Ran out of time: 5 min.");
  assert.equal(say("signaled", { signal: 11 }), "Was ended by signal 11 (SIGSEGV, an invalid memory access).");
  assert.equal(say("setup_error", { detail: "no place" }), "Could not be started: no place.");
  // Every verdict of the server has its sentence.
  const source = await readFile(new URL("../../shared/sandrun_shared/jobs.py", import.meta.url), "utf8");
  const names = [.../class Verdict.*?\n\n\n/s.exec(source)[0].matchAll(/^ {4}(\w+) = "/gm)].map(([, name]) => name);
  assert.ok(names.length > 10);
  for (const name of names) assert.doesNotMatch(say(name, { exit_code: 3, signal: 9 }), /Ended: |undefined/, name);
  assert.equal(verdict({ verdict: "ok" }).good, true);
});

test("files tell their language, and every language of the server is known", async () => {
  const { interpreterOf, isWritten, isSample, language } = await load("languages.js");
  const source = await readFile(new URL("../../shared/sandrun_shared/languages.py", import.meta.url), "utf8");
  const names = [...source.matchAll(/^ {4}_(?:interpreted|compiled)\(\s*"(\w+)"/gm)].map(([, name]) => name);
  assert.ok(names.length > 10);
  for (const name of names) {
    assert.ok(isWritten(name) && isSample(language(name).sample), name);
    if (name !== "sh") assert.equal(interpreterOf(`x/${language(name).file}`), name);
  }
  assert.equal(isWritten("executable"), false);
  assert.equal(interpreterOf("Makefile"), null);
  assert.equal(language("cobol").title, "cobol");
});
