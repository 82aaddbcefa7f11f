// The page put together.

import { byId, make } from "./dom.js";
import { Draft } from "./draft.js";
import { withPackage } from "./environments.js";
import { EXAMPLES, fieldsOf } from "./examples.js";
import { More } from "./more.js";
import { Pickers, fillLimits } from "./pickers.js";
import { Program } from "./program.js";
import { Quota } from "./quota.js";
import { Runner } from "./runner.js";
import { Server } from "./server.js";
import { applyTheme, installSettings, isEmbedded, serverAddress } from "./settings.js";
import { decodeLink } from "./share.js";
import { Sharing } from "./sharing.js";
import { Uploads } from "./uploads.js";

const LINKS = /^(?:https?:\/\/|mailto:)\S+$/;
const MAIL = /^[^\s@/:]+@[^\s@/:]+$/;

applyTheme();
installSettings();

const server = new Server(serverAddress());
const quota = new Quota(server);
const runner = new Runner({
  server, prepare, changed: () => quota.refresh(), environments: () => pickers.environments, choose: (name) => { pickers.environment = name; },
});
const program = new Program({ run: () => runner.run(), pick: (interpreter) => { pickers.interpreter = interpreter; } });
const more = new More();
const pickers = new Pickers(setLanguage);
const uploads = new Uploads({
  open: (path, text) => program.open(path, text),
  say: (text) => runner.mention(text),
  fault: (text) => runner.fault("Not added", text),
  changed: (paths) => more.offerFiles(paths),
});
const draft = new Draft({ read: fields, open: show, isLost: () => runner.isBusy || uploads.files.size > 0 || byId("variables").value.trim() !== "" });
let wanted = null; // what a link asked for before the server said what it has

new Sharing({ server, runner, fields, prepare, added: () => uploads.files.size });

function setLanguage(interpreter) {
  program.setLanguage(interpreter);
  more.setLanguage(interpreter);
}

function prepare() {
  const manifest = program.manifest(pickers.interpreter, pickers.environment);
  const others = [...uploads.files].filter(([path]) => path !== manifest.entrypoint);
  const { fields: further, files } = more.parts(pickers.interpreter, [manifest.entrypoint, ...uploads.files.keys()]);
  return { manifest: { ...manifest, ...further }, files: [[manifest.entrypoint, program.blob], ...others, ...files] };
}

function fields() {
  return { ...program.fields(), language: pickers.interpreter, environment: pickers.environment };
}

function choose({ language, environment }) {
  if (environment) pickers.environment = environment;
  if (language) pickers.interpreter = language;
}

function show(given) {
  wanted = given;
  choose(given);
  program.setFields(given);
}

async function openLink() {
  try {
    const given = await decodeLink(location.hash);
    if (!given) return false;
    show(given);
    runner.say("idle", "Opened from a link. Read it before you run it.");
    return true;
  } catch {
    runner.fault("Not opened", "The link is damaged: the program in it cannot be read.");
    return false;
  }
}

function offerExamples() {
  const offered = EXAMPLES.map((example) => {
    const has = example.needs ? withPackage(pickers.environments, example.needs) : ["default"];
    return pickers.interpreters.includes(example.language) && has.length > 0 ? { ...example, environment: has[0] } : null;
  }).filter(Boolean);
  const menu = byId("examples");
  menu.replaceChildren(make("option", { value: "" }, "Choose…"), ...offered.map(({ title }) => make("option", { value: title }, title)));
  menu.onchange = () => {
    const chosen = offered.find(({ title }) => title === menu.value);
    menu.value = "";
    if (!chosen) return;
    show(fieldsOf(chosen, chosen.environment));
    menu.dispatchEvent(new Event("sandrun-edit", { bubbles: true }));
    runner.mention("The example is open. Undo in the editor brings your program back.");
  };
}

// What the operator says is text; a link only where it looks like one.
function tellOfOperator({ notice, contact, documentation }) {
  byId("operator-notice").hidden = !notice;
  byId("operator-notice").textContent = notice ?? "";
  const address = MAIL.test(contact ?? "") ? `mailto:${contact}` : contact ?? "";
  const line = byId("contact");
  line.hidden = !contact;
  line.replaceChildren("Contact: ", LINKS.test(address) ? make("a", { href: address, rel: "noreferrer" }, contact) : contact ?? "");
  const docs = byId("documentation");
  docs.hidden = !LINKS.test(documentation ?? "");
  if (!docs.hidden) docs.href = documentation;
}

async function askServer() {
  try {
    const [info, { details }] = await Promise.all([server.json(""), server.json("environments")]);
    tellOfOperator(info);
    fillLimits(info.limits);
    more.offerGpus(info.gpus);
    uploads.mostBytes = info.limits.upload_bytes;
    byId("about").textContent = `Sandrun ${info.version}.`;
    pickers.fill(info.interpreters, details);
    if (wanted) choose(wanted);
    offerExamples();
  } catch (error) {
    runner.fault(error.title ?? "Something went wrong in this page", error.message);
  }
}

document.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey) || event.defaultPrevented || byId("settings").open) return;
  event.preventDefault();
  runner.run();
});
window.addEventListener("hashchange", openLink);
byId("find").addEventListener("click", () => program.find());
byId("api-docs").href = server.url("docs");

if (/^(Mac|iP)/.test(navigator.platform)) {
  byId("run").querySelector("kbd").textContent = "⌘ ⏎";
  byId("editor-help").textContent = byId("editor-help").textContent.replace("Ctrl-Enter", "Command-Enter").replace("Ctrl-F", "Command-F");
}
setLanguage(pickers.interpreter);
draft.begin({ fromLink: await openLink() });
await Promise.all([askServer(), quota.refresh()]);
draft.settle();
if (matchMedia("(pointer: fine)").matches && !isEmbedded()) program.focus(); // elsewhere it would bring up a keyboard
document.documentElement.dataset.ready = "yes";
