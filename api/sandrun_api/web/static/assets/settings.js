// What a person set for this browser: the colours, the server. Kept here, sent nowhere.

import { byId } from "./dom.js";

const PREFIX = "sandrun.";

/** Whether the page is part of another one: then it keeps nothing in the browser, and knows nothing that is kept there. */
export function isEmbedded() {
  return document.documentElement.dataset.embed === "yes";
}

/** What is kept under that name; "" for nothing. */
export function readSetting(name) {
  if (isEmbedded()) return "";
  try {
    return localStorage.getItem(PREFIX + name) ?? "";
  } catch {
    return ""; // storage is forbidden: every visit is the first
  }
}

/** Keep a text, or forget it if it is empty; whether the browser did. */
export function writeSetting(name, value) {
  if (isEmbedded()) return false;
  try {
    if (value) localStorage.setItem(PREFIX + name, value);
    else localStorage.removeItem(PREFIX + name);
    return true;
  } catch {
    return false; // it lasts as long as the page, then
  }
}

function isAddress(text) {
  try {
    return ["http:", "https:"].includes(new URL(text).protocol);
  } catch {
    return false;
  }
}

/** The server's address: as set here, else as the page says, else where the page came from. */
export function serverAddress() {
  const set = readSetting("server");
  const made = document.querySelector('meta[name="sandrun-server"]')?.content.trim();
  return (isAddress(set) && set) || made || ".";
}

/** Use the colours that were set. */
export function applyTheme() {
  const theme = readSetting("theme");
  if (["light", "dark"].includes(theme)) document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
}

/** Make the dialog work; a change of the server reloads the page. */
export function installSettings() {
  const dialog = byId("settings");
  byId("settings-open").addEventListener("click", () => {
    byId("theme").value = readSetting("theme");
    byId("server").value = readSetting("server");
    byId("server-fault").textContent = "";
    dialog.showModal();
  });
  byId("settings-cancel").addEventListener("click", () => dialog.close());
  dialog.querySelector("form").addEventListener("submit", (event) => {
    event.preventDefault(); // the policy of the page forbids forms that are sent
    const server = byId("server").value.trim();
    if (server && !isAddress(server)) {
      byId("server-fault").textContent = "An address begins with https:// or http://.";
      return;
    }
    const changed = server !== readSetting("server");
    writeSetting("theme", byId("theme").value);
    writeSetting("server", server);
    applyTheme();
    dialog.close();
    if (changed) location.reload();
  });
}
