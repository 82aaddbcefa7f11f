// The page put together.

import { byId } from "./dom.js";
import { More } from "./more.js";
import { Pickers, fillLimits } from "./pickers.js";
import { Program } from "./program.js";
import { Quota } from "./quota.js";
import { Runner } from "./runner.js";
import { Server } from "./server.js";
import { applyTheme, installSettings, serverAddress } from "./settings.js";
import { decodeLink, encodeLink } from "./share.js";
import { Uploads } from "./uploads.js";

applyTheme();
installSettings();

const server = new Server(serverAddress());
const quota = new Quota(server);
const runner = new Runner({ server, prepare, changed: () => quota.refresh() });
const program = new Program({ run: () => runner.run(), pick: (interpreter) => { pickers.interpreter = interpreter; } });
const more = new More();
const pickers = new Pickers(setLanguage);
const uploads = new Uploads({
  open: (path, text) => program.open(path, text),
  say: (text) => runner.mention(text),
  fault: (text) => runner.fault("Not added", text),
  changed: (paths) => more.offerFiles(paths),
});
let wanted = null; // what a link asked for before the server said what it has

function setLanguage(interpreter) {
  program.setLanguage(interpreter);
  more.setLanguage(interpreter);
}

function prepare() {
  const manifest = program.manifest(pickers.interpreter, pickers.environment);
  const others = [...uploads.files].filter(([path]) => path !== manifest.entrypoint);
  const { fields, files } = more.parts(pickers.interpreter, [manifest.entrypoint, ...uploads.files.keys()]);
  return { manifest: { ...manifest, ...fields }, files: [[manifest.entrypoint, program.blob], ...others, ...files] };
}

function choose({ language, environment }) {
  if (environment) pickers.environment = environment;
  if (language) pickers.interpreter = language;
}

async function openLink() {
  try {
    const fields = await decodeLink(location.hash);
    if (!fields) return;
    wanted = fields;
    choose(fields);
    program.setFields(fields);
    runner.say("idle", "Opened from a link. Read it before you run it.");
  } catch {
    runner.fault("Not opened", "The link is damaged: the program in it cannot be read.");
  }
}

async function share() {
  let fields;
  try {
    fields = { ...program.fields(), language: pickers.interpreter, environment: pickers.environment };
    history.replaceState(null, "", `#${await encodeLink(fields)}`);
  } catch (error) {
    runner.fault("No link", error.message);
    return;
  }
  // Variables are where people keep their keys.
  const within = fields.variables ? " So are the values of its environment variables." : "";
  const without = uploads.files.size > 0 ? " The added files are not in it." : "";
  try {
    await navigator.clipboard.writeText(location.href);
    runner.mention(`The link is copied. The program is in the link itself, no server has it.${within}${without}`);
  } catch {
    runner.mention(`The link is in the address bar, to be copied from there.${within}${without}`);
  }
}

async function askServer() {
  try {
    const [info, { details }] = await Promise.all([server.json(""), server.json("environments")]);
    fillLimits(info.limits);
    more.offerGpus(info.gpus);
    uploads.mostBytes = info.limits.upload_bytes;
    byId("about").textContent = `Sandrun ${info.version}.`;
    pickers.fill(info.interpreters, details);
    if (wanted) choose(wanted);
  } catch (error) {
    runner.fault(error.title, error.message);
  }
}

document.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey) || event.defaultPrevented || byId("settings").open) return;
  event.preventDefault();
  runner.run();
});
window.addEventListener("hashchange", openLink);
byId("share").addEventListener("click", share);

if (/^(Mac|iP)/.test(navigator.platform)) {
  byId("run").querySelector("kbd").textContent = "⌘ ⏎";
  byId("editor-help").textContent = byId("editor-help").textContent.replace("Ctrl-Enter", "Command-Enter");
}
setLanguage(pickers.interpreter);
await openLink();
await Promise.all([askServer(), quota.refresh()]);
if (matchMedia("(pointer: fine)").matches) program.focus(); // elsewhere it would bring up a keyboard
document.documentElement.dataset.ready = "yes";
