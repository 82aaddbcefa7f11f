// The parts of the web page that need no browser. tests/repo/test_web_page.py runs this: node --test
import assert from "node:assert/strict";
import { readFile, mkdtemp, cp, writeFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";

const assets = new URL("../../api/sandrun_api/web/static/assets/", import.meta.url);
let folder;
const load = (name) => import(`file://${folder}/${name}`);

before(async () => { // a package.json in their folder makes them modules
  folder = await mkdtemp(join(tmpdir(), "sandrun-web-"));
  const names = [
    "arguments", "csv", "dom", "environments", "examples", "faults", "form", "languages", "packages", "share", "snippets", "streams", "variables", "words",
  ];
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

test("two streams in one terminal keep their own colours", async () => {
  const { LineCount, Streams } = await load("streams.js");
  const all = (...chunks) => { const streams = new Streams(); return chunks.map(([stream, text]) => streams.merge(stream, text)).join(""); };
  const err = "\x1b[3;33m";
  assert.equal(all(["stdout", "a\x1b[1;31mb"], ["stdout", "c"]), "a\x1b[1;31mbc");
  assert.equal(all(["stdout", "\x1b[31ma"], ["stderr", "e"], ["stdout", "b\x1b[0m"], ["stderr", "f"], ["stdout", "c"]),
    `\x1b[31ma\x1b[m${err}e\x1b[m\x1b[31mb\x1b[0m\x1b[m${err}f\x1b[mc`);
  assert.equal(all(["stderr", "\x1b[1mx\x1b[0my\x1b[31mz\x1b[39mw"]), `\x1b[m${err}\x1b[1mx\x1b[0m${err}y\x1b[31mz\x1b[39m\x1b[33mw`);
  // A sequence in parts, with the other stream in between.
  assert.equal(all(["stdout", "a\x1b[3"], ["stderr", "e"], ["stdout", "1mb"]), `a\x1b[m${err}e\x1b[m\x1b[31mb`);
  assert.equal(all(["stdout", "a\x1b"], ["stdout", "[31mb"]), "a\x1b[31mb");
  assert.equal(all(["stdout", `\x1b]${"x".repeat(300)}`], ["stdout", "y"]).length, 303); // no end in sight: not held back
  const many = new Streams();
  for (let number = 0; number < 10_000; number += 1) many.merge("stdout", `\x1b[38;5;${number % 256}mx`);
  assert.ok(many.merge("stderr", "e").length < 300 && many.merge("stdout", "x").length < 300); // what is kept is bounded
  const lines = (...texts) => { const count = new LineCount(); for (const text of texts) count.add(text); return count.lines; };
  assert.deepEqual([lines(""), lines("a"), lines("a\n"), lines("a", "b\n", "c"), lines("\n\n"), lines("a\nb", "\n")], [0, 1, 1, 2, 2, 2]);
});

test("environments by their packages, and what a program lacks", async () => {
  const { headlines, lacking, withPackage } = await load("environments.js");
  const environments = [
    { name: "default", packages: [] },
    { name: "ml", packages: ["joblib==1", "numpy==2.2.0", "pandas==2", "scikit_learn==1.6"] },
    { name: "images", packages: ["numpy==2", "opencv-python-headless==4", "Pillow==11"] },
  ];
  assert.deepEqual(environments.map(headlines), [[], ["scikit-learn", "pandas", "numpy"], ["numpy", "opencv-python-headless", "pillow"]]);
  assert.deepEqual(headlines({ packages: ["b==1", "a==2"] }), ["b", "a"]);
  assert.deepEqual(withPackage(environments, "NumPy"), ["ml", "images"]);
  const say = (module) => `Traceback (most recent call last):\n  File "x"\nModuleNotFoundError: No module named '${module}'\n`;
  assert.deepEqual(lacking(say("sklearn.svm"), environments), { module: "sklearn.svm", environments: ["ml"] });
  assert.deepEqual(lacking(say("cv2"), environments).environments, ["images"]);
  assert.deepEqual(lacking(say("cowsay"), environments).environments, []);
  assert.equal(lacking("print: ModuleNotFoundError", environments), null);
});

test("the program as a command and as a program", async () => {
  const { asCurl, asFrame, asPython, runBody } = await load("snippets.js");
  const code = "print('it''s', \"x\", 'ä ✓ 😀', r'\\n')\nJSON\n\"\"\"\\\"\"\"\"\r\u2028\ud800'$(id)' `id`\n\"";
  const manifest = { entrypoint: "main.py", interpreter: "python3", environment: "default", args: [], env: { A: "it's" }, warm: false, timeout: 1.5, stdin: "JSON\n" };
  const body = runBody(manifest, code);
  assert.deepEqual(body, { code, interpreter: "python3", environment: "default", env: { A: "it's" }, warm: false, timeout: 1.5, stdin: "JSON\n" });
  assert.deepEqual(runBody({ args: ["x"], requirements: "requirements.txt" }, "", { "requirements.txt": "six" }).files, { "requirements.txt": "six" });
  const { execFileSync } = await import("node:child_process");
  const bin = await mkdtemp(join(tmpdir(), "sandrun-web-"));
  try { // a curl that says what it was given
    await writeFile(join(bin, "curl"), '#!/bin/sh\nprintf "%s\\0" "$@"\nexec cat\n', { mode: 0o755 });
    const said = execFileSync("bash", ["-c", asCurl("http://h/it's/", body)], { env: { PATH: `${bin}:/usr/bin:/bin` }, encoding: "utf8" }).split("\0");
    assert.equal(said[2], "http://h/it's/run");
    assert.deepEqual(JSON.parse(said.at(-1)), body);
  } finally {
    await rm(bin, { recursive: true });
  }
  const python = asPython("http://h/", body).replace(/^with [^]*/m, "print(request.full_url, request.data.decode())\n");
  const [url, data] = execFileSync("python3", ["-c", python], { encoding: "utf8" }).split(/ ([^]*)/);
  assert.equal(url, "http://h/run");
  assert.deepEqual(JSON.parse(data), body);
  for (const tail of ['"""', '\\', '\\"', '""""', "\n"]) {
    const text = asPython("http://h/", { code: tail }).replace(/^with [^]*/m, "print(json.dumps(code))\n");
    assert.equal(JSON.parse(execFileSync("python3", ["-c", text], { encoding: "utf8" })), tail);
  }
  assert.match(asFrame('http://h/"&', "z=a"), /^<iframe src="http:\/\/h\/&quot;&amp;embed#z=a" title="[^"]+" /);
});

test("examples are of known languages, and differ", async () => {
  const { EXAMPLES, fieldsOf } = await load("examples.js");
  const { isWritten, language } = await load("languages.js");
  assert.ok(new Set(EXAMPLES.map((example) => example.language)).size >= 4);
  assert.equal(new Set(EXAMPLES.map(({ title }) => title)).size, EXAMPLES.length);
  for (const example of EXAMPLES) {
    assert.ok(isWritten(example.language) && language(example.language).sample, example.title);
    assert.equal(fieldsOf(example).environment, "default");
  }
  assert.ok(EXAMPLES.some(({ stdin }) => stdin) && EXAMPLES.some(({ needs }) => needs));
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
  const { clock, count, duration, missing, size, transferred, verdict } = await load("words.js");
  assert.deepEqual([0, 1, 1023, 1536, 5 << 20, 250 << 20].map(size), ["0 bytes", "1 byte", "1023 bytes", "1.5 KB", "5 MB", "250 MB"]);
  assert.deepEqual([0.0002, 0.0042, 0.034, 0.9999, 5, 75, 300, 3600, 4800].map(duration), ["less than 1 ms", "4 ms", "34 ms", "1 s", "5 s", "75 s", "5 min", "1 h", "1 h 20 min"]);
  assert.deepEqual([transferred(0, 3 << 20, 9), transferred(1 << 20, 3 << 20, 1.9), transferred(1 << 20, 3 << 20, 2.1), transferred(5, 5, 9)], [
    "0 bytes of 3 MB", "1 MB of 3 MB", "1 MB of 3 MB, about 5 s left", "5 bytes of 5 bytes",
  ]);
  assert.deepEqual([count(1, "file"), count(2, "file")], ["1 file", "2 files"]);
  const limits = { timeout: 300, memory_mb: 512, log_mb: 10, disk_mb: 100, cpu_seconds: 4 };
  const say = (name, more = {}) => verdict({ verdict: name, limits, ...more }).text;
  assert.equal(say("memory_limit"), "Memory limit reached: 512 MB.");
  assert.equal(say("wall_time_limit"), "Time limit reached: 5 min.");
  assert.equal(say("signaled", { signal: 11 }), "Killed by signal 11 (SIGSEGV, an invalid memory access).");
  assert.equal(say("setup_error", { detail: "no place" }), "Could not be started: no place.");
  // Every verdict of the server has its sentence.
  const source = await readFile(new URL("../../shared/sandrun_shared/jobs.py", import.meta.url), "utf8");
  const names = [.../class Verdict.*?\n\n\n/s.exec(source)[0].matchAll(/^ {4}(\w+) = "/gm)].map(([, name]) => name);
  assert.ok(names.length > 10);
  for (const name of names) assert.doesNotMatch(say(name, { exit_code: 3, signal: 9 }), /Ended: |undefined/, name);
  assert.equal(verdict({ verdict: "ok" }).good, true);
  const noon = new Date(2026, 10, 30, 12, 0);
  assert.match(clock(3600, noon), /^0?1:00 PM \(in 1 h\)$|^13:00 \(in 1 h\)$/);
  assert.match(clock(59, noon), /12:00:59.* \(in 59 s\)$/);
  assert.match(clock(15 * 3600, noon), /^\S.*, .*3:00.* \(in 15 h\)$/); // another day is named
  assert.equal(missing({ truncated: false, stdout_bytes: 5, stderr_bytes: 0, next_offset: 5 }), "");
  assert.match(missing({ truncated: true, stdout_bytes: 12 << 20, stderr_bytes: 1 << 20, next_offset: 10 << 20 }), /^3 MB of the output are missing: .* first 10 MB /);
  assert.match(missing({ truncated: true, stdout_bytes: 5, stderr_bytes: 0, next_offset: 5 }), /^Part of the output is missing/);
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
