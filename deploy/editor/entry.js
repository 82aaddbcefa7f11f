// What the web page needs of CodeMirror 6, as one module. deploy/vendor-editor.sh bundles it.
import { closeBrackets, closeBracketsKeymap } from "@codemirror/autocomplete";
import { defaultKeymap, history, historyKeymap, indentWithTab } from "@codemirror/commands";
import { javascript } from "@codemirror/lang-javascript";
import { python } from "@codemirror/lang-python";
import {
  HighlightStyle, StreamLanguage, bracketMatching, indentOnInput, indentUnit, syntaxHighlighting,
} from "@codemirror/language";
import { c, clike, cpp } from "@codemirror/legacy-modes/mode/clike";
import { go } from "@codemirror/legacy-modes/mode/go";
import { perl } from "@codemirror/legacy-modes/mode/perl";
import { r } from "@codemirror/legacy-modes/mode/r";
import { ruby } from "@codemirror/legacy-modes/mode/ruby";
import { rust } from "@codemirror/legacy-modes/mode/rust";
import { shell } from "@codemirror/legacy-modes/mode/shell";
import { highlightSelectionMatches, openSearchPanel, search, searchKeymap } from "@codemirror/search";
import { Compartment, EditorState, Prec } from "@codemirror/state";
import {
  EditorView, drawSelection, highlightActiveLine, highlightActiveLineGutter, highlightSpecialChars, keymap, lineNumbers,
} from "@codemirror/view";
import { tags } from "@lezer/highlight";

const words = (text) => Object.fromEntries(text.split(" ").map((word) => [word, true]));
// A parser of PHP proper is as large as half of the editor, and brings those of HTML and CSS along.
const php = clike({
  name: "php",
  keywords: words(
    "abstract and as break case catch class clone const continue declare default do echo else elseif enum extends final " +
    "finally fn for foreach function global goto if implements include instanceof insteadof interface match namespace new " +
    "or print private protected public readonly require require_once return static switch throw trait try use var while xor yield",
  ),
  types: words("array bool callable float int iterable mixed never null object self string void"),
  blockKeywords: words("catch do else elseif for foreach if switch try while finally"),
  atoms: words("true false null TRUE FALSE NULL"),
  multiLineStrings: true,
  hooks: {
    $(stream) { stream.eatWhile(/[\w]/); return "variableName"; },
    "#"(stream) { stream.skipToEnd(); return "comment"; },
    "<"(stream) { return stream.match("?php") || stream.match("?=") ? "meta" : false; },
    "?"(stream) { return stream.match(">") ? "meta" : false; },
  },
});

const languages = {
  python3: () => [python(), indentUnit.of("    ")],
  node: () => [javascript(), indentUnit.of("  ")],
  bash: () => [StreamLanguage.define(shell)],
  sh: () => [StreamLanguage.define(shell)],
  ruby: () => [StreamLanguage.define(ruby)],
  Rscript: () => [StreamLanguage.define(r)],
  perl: () => [StreamLanguage.define(perl)],
  php: () => [StreamLanguage.define(php)],
  c: () => [StreamLanguage.define(c), indentUnit.of("    ")],
  cpp: () => [StreamLanguage.define(cpp), indentUnit.of("    ")],
  go: () => [StreamLanguage.define(go), indentUnit.of("\t")],
  rust: () => [StreamLanguage.define(rust), indentUnit.of("    ")],
};

// Colours are the page's custom properties, which a shadow root inherits; so light and dark are its matter.
const colours = HighlightStyle.define([
  { tag: [tags.keyword, tags.operatorKeyword, tags.modifier, tags.self], color: "var(--code-keyword)" },
  { tag: [tags.string, tags.special(tags.string), tags.regexp, tags.character], color: "var(--code-string)" },
  { tag: [tags.number, tags.bool, tags.null, tags.atom], color: "var(--code-literal)" },
  { tag: [tags.comment, tags.meta], color: "var(--code-comment)", fontStyle: "italic" },
  { tag: [tags.function(tags.variableName), tags.function(tags.definition(tags.variableName))], color: "var(--code-function)" },
  { tag: [tags.definition(tags.variableName), tags.className, tags.typeName, tags.namespace], color: "var(--code-name)" },
  { tag: [tags.standard(tags.name), tags.labelName, tags.attributeName, tags.propertyName], color: "var(--code-function)" },
  { tag: tags.invalid, color: "var(--bad)" },
]);
const look = EditorView.theme({
  "&": { height: "100%", color: "var(--text)" },
  "&.cm-focused": { outline: "none" }, // the page shows the focus around the whole editor
  ".cm-scroller": { fontFamily: "var(--mono)", fontSize: "0.875rem", lineHeight: "1.55" },
  ".cm-content": { caretColor: "var(--text)" },
  ".cm-gutters": { backgroundColor: "transparent", color: "var(--muted)", border: "none" },
  "& .cm-cursor": { borderLeftColor: "var(--text)" },
  ".cm-activeLine, .cm-activeLineGutter": { backgroundColor: "var(--code-line)" },
  ".cm-activeLineGutter": { color: "var(--text)" },
  "& .cm-selectionBackground, &.cm-focused > .cm-scroller > .cm-selectionLayer .cm-selectionBackground":
    { background: "var(--code-selection)" },
  "&.cm-focused .cm-matchingBracket": { backgroundColor: "var(--code-bracket)" },
  ".cm-panels": { backgroundColor: "var(--panel)", color: "var(--text)", borderColor: "var(--line)", fontFamily: "var(--sans)" },
  ".cm-panel.cm-search": { padding: "0.5rem 2rem 0.5rem 0.5rem", fontSize: "0.875rem" },
  ".cm-panel.cm-search label": { fontSize: "0.8125rem", whiteSpace: "nowrap" },
  ".cm-panel.cm-search [name=close]": { color: "var(--text)", fontSize: "1.25rem", minWidth: "1.5rem", minHeight: "1.5rem" },
  ".cm-textfield": { backgroundColor: "var(--sunken)", color: "var(--text)", border: "1px solid var(--edge)", fontSize: "0.8125rem" },
  ".cm-button": { backgroundImage: "none", backgroundColor: "var(--panel)", border: "1px solid var(--edge)", fontSize: "0.8125rem" },
  ".cm-textfield:focus-visible, .cm-button:focus-visible": { outline: "2px solid var(--accent)" },
  ".cm-searchMatch, .cm-selectionMatch": { backgroundColor: "var(--code-bracket)" },
  ".cm-searchMatch.cm-searchMatch-selected": { backgroundColor: "var(--code-selection)", outline: "1px solid var(--accent)" },
});

// Typing over a selection is done here: Chromium's own way would keep the style of what it replaces in an attribute, which
// the policy of the page forbids as well.
const typeOver = EditorView.domEventHandlers({
  beforeinput(event, view) {
    const { main } = view.state.selection;
    if (event.inputType !== "insertText" || event.data === null || view.composing || main.empty) return false;
    const change = () => view.state.update(view.state.replaceSelection(event.data), { userEvent: "input.type", scrollIntoView: true });
    const handlers = view.state.facet(EditorView.inputHandler);
    if (!handlers.some((handler) => handler(view, main.from, main.to, event.data, change))) view.dispatch(change());
    event.preventDefault();
    return true;
  },
});

/**
 * Makes an editor in a shadow root of `host`: there CodeMirror adopts its style sheets, where in a document it would add
 * elements of style, which a strict Content-Security-Policy forbids. `attributes` are those of the text itself (labels),
 * `bindings` come before all others, `changed()` is told when the text has changed. Answers with the few things the page asks of it.
 */
export function createEditor({ host, attributes, bindings, changed = () => {} }) {
  const root = host.attachShadow({ mode: "open", delegatesFocus: true });
  const language = new Compartment();
  const view = new EditorView({
    parent: root,
    root,
    state: EditorState.create({
      extensions: [
        Prec.highest(keymap.of(bindings)),
        lineNumbers(), highlightActiveLineGutter(), highlightSpecialChars(), history(), drawSelection(),
        EditorState.allowMultipleSelections.of(true), indentOnInput(), bracketMatching(), closeBrackets(),
        highlightActiveLine(), syntaxHighlighting(colours), look, typeOver,
        search({ top: true }), highlightSelectionMatches(),
        keymap.of([...closeBracketsKeymap, ...searchKeymap, ...defaultKeymap, ...historyKeymap, indentWithTab]),
        EditorView.contentAttributes.of(attributes), EditorView.lineWrapping,
        language.of([]),
        EditorView.updateListener.of((update) => { if (update.docChanged) changed(); }),
      ],
    }),
  });
  return {
    get text() { return view.state.doc.toString(); },
    set text(value) {
      view.dispatch({ changes: { from: 0, to: view.state.doc.length, insert: value }, selection: { anchor: 0 } });
    },
    setLanguage(name) { view.dispatch({ effects: language.reconfigure(languages[name]?.() ?? []) }); },
    find() { openSearchPanel(view); },
    focus() { view.focus(); },
  };
}
