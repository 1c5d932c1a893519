// Elements, and the texts of strangers in them.
// Owns the rule that a text is only ever put in as text, with the characters escaped that the commands of `twinspan`
// escape too. Refuses to know what is shown.

import { listen, present } from "./redraw.js";
import { word } from "./words.js";

// Characters that act instead of being read, or that show a text in another order than it has.
const harmful = /[\u0000-\u001f\u007f-\u009f\u061c\u200b\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]/g;
const short = { "\t": "\\t", "\n": "\\n", "\r": "\\r" };

/** A text with every such character as a visible escape. */
export function clean(text) {
  return String(text ?? "").replace(harmful, (c) => short[c] ?? `\\u{${c.codePointAt(0).toString(16)}}`);
}

/** Creates an element. `attributes` are set as such, `children` are nodes or texts; absent ones are left out. */
export function h(name, attributes, ...children) {
  return fill(document.createElement(name), attributes, children);
}

/** The same for SVG. */
export function svg(name, attributes, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (typeof value === "function") {
      listen(element, name, value);
    } else if (value === true) {
      element.setAttribute(name, "");
    } else if (value !== null && value !== undefined && value !== false) {
      element.setAttribute(name, value);
    }
  }
  element.append(...present(children));
  return element;
}

/** Sets a text only where it differs, so that nothing is laid out or announced anew. */
export function say(element, text) {
  if (element.textContent !== text) {
    element.textContent = text;
  }
}

/** Replaces the children. */
export function show(element, ...children) {
  element.replaceChildren(...present(children));
}

// More of a stranger's text than this stands in the page only when it is asked for.
const LONG = 240;

/** A stranger's text for one line: cut, with the whole of it as the title. */
export function cut(text, name = "span", attributes = {}) {
  const whole = clean(text);
  const shown = whole.length > LONG ? `${whole.slice(0, LONG)}…` : whole;
  return h(name, { ...attributes, class: `text cut ${attributes.class ?? ""}`, title: whole }, shown);
}

/** A code of the operator, after its word where the language has one: logs, metrics and `kubectl` have the code. */
export function coded(list, code) {
  const translated = word(list, code);
  return [translated !== String(code ?? "") && h("span", { class: "translated" }, `${translated} `), cut(code, "code")];
}

/**
 * A stranger's text that may take several lines; a long one has a button that shows the rest. `opened` has the keys of
 * those whose rest is shown, and keeps them while the page is drawn anew.
 */
export function passage(text, { more, opened, key }, name = "span", attributes = {}) {
  const whole = clean(text);
  const look = { ...attributes, class: `text ${attributes.class ?? ""}` };
  if (whole.length <= LONG) {
    return h(name, look, whole);
  }
  if (opened.has(key)) {
    return h(name, { ...look, id: `whole-${key}`, tabindex: "-1" }, whole);
  }
  const click = ({ currentTarget }) => {
    opened.add(key);
    const shown = h(name, { ...look, id: `whole-${key}`, tabindex: "-1" }, whole);
    currentTarget.parentElement.replaceWith(shown);
    // The button is gone: the focus goes on from the text that it showed.
    shown.focus({ preventScroll: true });
  };
  return h(name, look, `${whole.slice(0, LONG)}… `, h("button", { type: "button", class: "quiet", id: `more-${key}`, click }, more));
}

const shapes = {
  InSync: "M2 7.5 5.5 11 12 3.5",
  Observing: "M1 7q6-7.5 12 0q-6 7.5-12 0M7 5.2a1.8 1.8 0 1 0 0 3.6 1.8 1.8 0 1 0 0-3.6",
  Pending: "M7 3.5V7l2.5 1.5M7 1.5a5.5 5.5 0 1 0 0 11 5.5 5.5 0 1 0 0-11",
  Differs: "M2 5h10M2 9h10M9.5 2l-5 10",
  Lost: "M7 1.8 13 12.2H1zM7 5.5v3M7 10.3v.2",
  Held: "M4.5 2.5v9M9.5 2.5v9",
  Refused: "M7 1.5a5.5 5.5 0 1 0 0 11 5.5 5.5 0 1 0 0-11M3.2 3.2l7.6 7.6",
  Unknown: "M4.5 4.5C4.5 1.5 9.7 1.5 9.7 4.5 9.7 6.5 7 6.5 7 8.5M7 11.5v.2",
};

/** The shape of a state, for those who see no colours; the word stands beside it. */
export function shape(state) {
  const path = svg("path", { d: shapes[state] ?? shapes.Unknown, fill: "none", stroke: "currentColor" });
  return svg("svg", { viewBox: "0 0 14 14", class: "shape", "aria-hidden": "true", focusable: "false" }, path);
}

/** The part of a class name that says how a state looks. */
export const tone = (state) => (Object.hasOwn(shapes, state) ? state : "Unknown");

// The last click on a button that copies: a redraw does not take back its answer.
let last = { id: "", text: "", done: false };

/** A command with a button that copies it. `id` is the beginning of the ids of both. */
export function command(text, words, id) {
  const shown = clean(text);
  const answers = ({ done }) => (done ? [words.copied, words.copied] : [words.copy, words.failed]);
  const [label, answer] = last.id === id && last.text === shown ? answers(last) : [words.copy, ""];
  const click = async ({ currentTarget: button }) => {
    const place = button.parentElement;
    const said = place.querySelector(".said");
    say(said, ""); // The same answer again is read out again.
    last = { id, text: shown, done: await copy(shown, place.querySelector("code")) };
    const now = answers(last);
    say(button, now[0]);
    say(said, now[1]);
  };
  return h(
    "div",
    { class: "command" },
    h("code", { class: "text", tabindex: "0", id: `${id}-command` }, shown),
    h("button", { type: "button", id: `${id}-copy`, "aria-label": words.label, click }, label),
    h("span", { class: "said", role: "status" }, answer),
  );
}

async function copy(text, code) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Without a secure context there is no clipboard: the command is selected, for the reader to copy.
    getSelection()?.selectAllChildren(code);
    return false;
  }
}
