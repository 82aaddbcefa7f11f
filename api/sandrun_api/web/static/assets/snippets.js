// The program as a command or another program that runs it by the interface: nothing but the program's text goes in.

const FIELDS = [
  "interpreter", "environment", "args", "stdin", "env", "outputs", "requirements", "timeout", "memory_mb", "cpu_seconds", "warm", "buffered",
];
const CONTROL = /[\x00-\x08\x0b-\x1f\x7f\u2028\u2029]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g;

/** The body of POST /run for a manifest, its program, and other files as { path: text }. */
export function runBody(manifest, code, files = {}) {
  const set = FIELDS.filter((name) => manifest[name] !== undefined && !(Array.isArray(manifest[name]) && manifest[name].length === 0));
  return { code, ...Object.fromEntries(set.map((name) => [name, manifest[name]])), ...(Object.keys(files).length > 0 && { files }) };
}

/** A command for a shell. */
export function asCurl(address, body) {
  const text = JSON.stringify(body, null, 2); // no line of it is the end: in JSON every one has punctuation
  return `curl --silent --show-error ${quoted(`${address}run`)} --header 'Content-Type: application/json' --data-binary @- <<'END'\n${text}\nEND\n`;
}

/** A program for Python, without packages. */
export function asPython(address, body) {
  const { code, ...rest } = body;
  const fields = [`    "code": code,`, ...Object.entries(rest).map(([name, value]) => `    ${JSON.stringify(name)}: ${literal(value)},`)];
  return `import json
import urllib.request

code = ${block(code)}

body = {
${fields.join("\n")}
}
request = urllib.request.Request(
    ${literal(`${address}run`)},
    json.dumps(body).encode(),
    {"Content-Type": "application/json", "Accept": "application/json"},
)
with urllib.request.urlopen(request) as answer:
    result = json.load(answer)
print(result["output"], end="")
`;
}

/** A frame for another page. */
export function asFrame(address, fragment) {
  const url = `${address}embed#${fragment}`.replaceAll("&", "&amp;").replaceAll('"', "&quot;");
  return `<iframe src="${url}" title="A program to run" width="100%" height="480" loading="lazy"></iframe>\n`;
}

function quoted(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

function escaped(text) {
  return text.replace(CONTROL, (letter) => `\\u${letter.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

function block(text) {
  const inside = escaped(text.replace(/\\|"""|"$/g, (found) => (found === "\\" ? "\\\\" : found.replaceAll('"', '\\"'))));
  return `"""\\\n${inside}"""`;
}

function literal(value) {
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value === "string") return escaped(JSON.stringify(value));
  if (Array.isArray(value)) return `[${value.map(literal).join(", ")}]`;
  if (typeof value === "object") return `{${Object.entries(value).map(([name, item]) => `${literal(name)}: ${literal(item)}`).join(", ")}}`;
  return String(value);
}
