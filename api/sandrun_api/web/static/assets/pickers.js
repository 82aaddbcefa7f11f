// Language, environment and limits: filled from what the server has.

import { byId, make } from "./dom.js";
import { headlines } from "./environments.js";
import { isWritten, language } from "./languages.js";
import { count, duration } from "./words.js";

/** The two pickers; `chosen(interpreter)` is called when another language is chosen, by a person or for lack of it. */
export class Pickers {
  constructor(chosen) {
    this._chosen = chosen;
    this._language = byId("language");
    this._environment = byId("environment");
    this._interpreters = [];
    this._environments = [];
    this._language.addEventListener("change", () => this._changed());
    this._environment.addEventListener("change", () => this._fillLanguages());
  }

  /** What the server has, as it says. */
  get interpreters() { return this._interpreters; }

  get environments() { return this._environments; }

  get interpreter() { return this._language.value; }

  set interpreter(name) { this._select(this._language, name); this._changed(); }

  get environment() { return this._environment.value; }

  set environment(name) { this._select(this._environment, name); this._fillLanguages(); }

  /** Offer what the server has. */
  fill(interpreters, environments) {
    this._interpreters = interpreters;
    this._environments = environments;
    const options = environments.map((environment) => {
      const packages = headlines(environment);
      return make("option", { value: environment.name, title: environment.description },
        packages.length > 0 ? `${environment.name}: ${packages.join(", ")}` : environment.name);
    });
    if (options.length > 0) this._replace(this._environment, options);
    this._fillLanguages();
  }

  _fillLanguages() {
    const chosen = this._environments.find(({ name }) => name === this.environment);
    this._describe(chosen);
    const own = chosen?.interpreters ?? [];
    const both = this._interpreters.filter((name) => own.includes(name));
    const names = own.length === 0 ? this._interpreters : both.length > 0 ? both : own;
    const before = this.interpreter;
    if (names.length > 0) this._replace(this._language, names.filter(isWritten).map((name) => make("option", { value: name }, language(name).title)));
    if (this.interpreter !== before) this._changed();
  }

  _describe(environment) {
    const packages = environment?.packages ?? [];
    byId("environment-options").hidden = packages.length === 0;
    byId("environment-summary").textContent = `${environment?.name}: ${count(packages.length, "package")}`;
    byId("environment-text").textContent = environment?.description ?? "";
    byId("environment-packages").textContent = packages.join(" ");
  }

  _changed() { this._chosen(this.interpreter); }

  _replace(select, options) {
    const before = select.value;
    select.replaceChildren(...options);
    this._select(select, before);
  }

  _select(select, value) {
    if ([...select.options].some((option) => option.value === value)) select.value = value;
  }
}

/** Say what a job may use at most, and what it gets when nothing is said. */
export function fillLimits(limits) {
  const timeout = byId("timeout");
  const memory = byId("memory");
  Object.assign(timeout, { max: limits.max_timeout, placeholder: Math.min(limits.timeout, limits.max_timeout) });
  Object.assign(memory, { max: limits.max_memory_mb, placeholder: Math.min(limits.memory_mb, limits.max_memory_mb) });
  const cpu = byId("cpu");
  const show = () => {
    const isPossible = [timeout, memory, cpu].every((input) => input.checkValidity());
    byId("limits-summary").textContent = isPossible
      ? `${duration(Number(timeout.value || timeout.placeholder))}, ${memory.value || memory.placeholder} MB`
        + (Number(cpu.value) > 0 ? `, ${duration(Number(cpu.value))} of CPU time` : "")
      : "out of range";
  };
  for (const input of [timeout, memory, cpu]) input.addEventListener("input", show);
  show();
}
