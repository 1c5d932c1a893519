// Elements, and the texts of strangers in them.
// Owns the rule that a text is only ever put in as text, with the characters escaped that the commands of `twinspan`
// escape too. Refuses to know what is shown.

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
      element.addEventListener(name, value);
    } else if (value === true) {
      element.setAttribute(name, "");
    } else if (value !== null && value !== undefined && value !== false) {
      element.setAttribute(name, value);
    }
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
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
  element.replaceChildren(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
}

// More of a stranger's text than this stands in the page only when it is asked for.
const LONG = 240;

/** A stranger's text for one line: cut, with the whole of it as the title. */
export function cut(text, name = "span", attributes = {}) {
  const whole = clean(text);
  const shown = whole.length > LONG ? `${whole.slice(0, LONG)}…` : whole;
  return h(name, { ...attributes, class: `text cut ${attributes.class ?? ""}`, title: whole }, shown);
}

/** A stranger's text that may take several lines; a long one has a button that shows the rest. */
export function passage(text, more, name = "span", attributes = {}) {
  const whole = clean(text);
  const element = h(name, { ...attributes, class: `text ${attributes.class ?? ""}` });
  if (whole.length <= LONG) {
    element.append(whole);
    return element;
  }
  const click = () => show(element, whole);
  element.append(`${whole.slice(0, LONG)}… `, h("button", { type: "button", class: "quiet", click }, more));
  return element;
}

const shapes = {
  InSync: "M2 7.5 5.5 11 12 3.5",
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

/** Draws a place anew; what had the focus has it afterwards, if it has an id. */
export function keepFocus(place, draw) {
  const id = place.contains(document.activeElement) ? document.activeElement.id : "";
  draw();
  if (id) {
    document.getElementById(id)?.focus({ preventScroll: true });
  }
}

/** A command with a button that copies it. `id` is the beginning of the ids of both. */
export function command(text, words, id) {
  const code = h("code", { class: "text", tabindex: "0", id: `${id}-command` }, clean(text));
  const answer = h("span", { class: "said", role: "status" });
  const button = h("button", { type: "button", id: `${id}-copy`, "aria-label": words.label }, words.copy);
  button.addEventListener("click", async () => {
    const done = await copy(clean(text), code);
    say(button, done ? words.copied : words.copy);
    say(answer, done ? words.copied : words.failed);
  });
  return h("div", { class: "command" }, code, button, answer);
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
