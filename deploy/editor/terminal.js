// What the web page needs of xterm.js, as one module. deploy/vendor-editor.sh bundles it, with these two changes that the
// page's Content-Security-Policy asks for: xterm.js makes <sandrun-style> where it would make <style>, and writes
// `element.style.cssText` where it would set the attribute. It is version 5: version 6 sets timers for each line that is
// printed, and needs three to six times as long for many.
import { FitAddon } from "@xterm/addon-fit";
import { Terminal } from "@xterm/xterm";

/** A style sheet that its document adopts while the element is in it; its text content is the sheet's. */
class AdoptedStyle extends HTMLElement {
  #sheet = new CSSStyleSheet();

  set textContent(css) { this.#sheet.replaceSync(css); }

  connectedCallback() { document.adoptedStyleSheets = [...document.adoptedStyleSheets, this.#sheet]; }

  disconnectedCallback() { document.adoptedStyleSheets = document.adoptedStyleSheets.filter((sheet) => sheet !== this.#sheet); }
}
customElements.define("sandrun-style", AdoptedStyle);

export { FitAddon, Terminal };
