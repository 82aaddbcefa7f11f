// Language, environment and limits: filled from what the server has.

import { byId, make } from "./dom.js";
import { isWritten, language } from "./languages.js";
import { duration } from "./words.js";

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

  get interpreter() { return this._language.value; }

  set interpreter(name) { this._select(this._language, name); this._changed(); }

  get environment() { return this._environment.value; }

  set environment(name) { this._select(this._environment, name); this._fillLanguages(); }

  /** Offer what the server has. */
  fill(interpreters, environments) {
    this._interpreters = interpreters;
    this._environments = environments;
    const options = environments.map(({ name, description }) => make("option", { value: name, title: description }, name));
    if (options.length > 0) this._replace(this._environment, options);
    this._fillLanguages();
  }

  _fillLanguages() {
    const own = this._environments.find(({ name }) => name === this.environment)?.interpreters ?? [];
    const both = this._interpreters.filter((name) => own.includes(name));
    const names = own.length === 0 ? this._interpreters : both.length > 0 ? both : own;
    const before = this.interpreter;
    if (names.length > 0) this._replace(this._language, names.filter(isWritten).map((name) => make("option", { value: name }, language(name).title)));
    if (this.interpreter !== before) this._changed();
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
    byId("limits-summary").textContent =
      `${duration(Number(timeout.value || timeout.placeholder))}, ${memory.value || memory.placeholder} MB`
      + (Number(cpu.value) > 0 ? `, ${duration(Number(cpu.value))} of CPU time` : "");
  };
  for (const input of [timeout, memory, cpu]) input.addEventListener("input", show);
  show();
}
