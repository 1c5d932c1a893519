// The texts that screen readers read out.
// Owns the live regions, and the pauses between two announcements: the busier the list, the longer. Refuses to know
// what changed, but for services.

import { clean, h, say, show } from "./dom.js";
import { number, t, word } from "./words.js";

// Nobody can listen to more than this.
const QUIET = 2_000;
const MOST = 3;
// While more than that changes in each pause, the next pause is twice as long, up to this. Quiet services end it.
const LONGEST = 30_000;
// A reader who types is answered after the last key.
const TYPED = 500;

// News of the page itself, and the changes of services: the state before, and the row now.
const facts = new Set();
const changes = new Map();
let pause = QUIET;
let spoken = -Infinity;
let timer = 0;
let due = 0;

/** Tells a text, with others of the same moment. */
export function tell(text) {
  facts.add(text);
  speakIn(QUIET);
}

/** Tells that a service has another state than before. */
export function tellOf(before, row) {
  const from = changes.get(row.key)?.from ?? before.state;
  if (from !== row.state) {
    changes.set(row.key, { from, row });
    speakIn(Math.max(QUIET, spoken + pause - performance.now()));
  } else {
    changes.delete(row.key); // The service is back where it was.
  }
}

function speakIn(wait) {
  const at = performance.now() + wait;
  if (!timer || at < due) {
    clearTimeout(timer);
    due = at;
    timer = setTimeout(speak, wait);
  }
}

function speak() {
  timer = 0;
  spoken = performance.now();
  const many = changes.size > MOST;
  const lines = many
    ? [t("saidMany", { n: number(changes.size) })]
    : [...changes.values()].map(({ from, row }) =>
        t("saidChange", { name: clean(row.key), from: word("states", from), to: word("states", row.state) }),
      );
  const told = [...facts, ...lines].join("; ");
  pause = many ? Math.min(pause * 2, LONGEST) : QUIET;
  facts.clear();
  changes.clear();
  if (told) {
    show(document.getElementById("said"), h("p", {}, told));
  }
}

let answering = 0;

/** Answers what the reader just did with the list; `text()` is asked once the reader pauses. */
export function answer(text) {
  clearTimeout(answering);
  answering = setTimeout(() => say(document.getElementById("answered"), text()), TYPED);
}
