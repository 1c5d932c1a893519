// What is read out to those who listen.
// Owns the live region, and the pause between two announcements. Refuses to know what changed, but for services.

import { clean, h, show } from "./dom.js";
import { number, t, word } from "./words.js";

// Nobody can listen to more than this.
const QUIET = 2_000;
const MOST = 3;

let news = [];
let telling = 0;

/** Tells a text, with others of the same moment. */
export function tell(text) {
  news.push(text);
  telling ||= setTimeout(() => {
    telling = 0;
    const told = news.length > MOST ? t("saidMany", { n: number(news.length) }) : news.join("; ");
    news = [];
    show(document.getElementById("said"), h("p", {}, told));
  }, QUIET);
}

/** Tells that a service has another state than before. */
export function tellOf(before, row) {
  if (before && before.state !== row.state) {
    tell(t("saidChange", { name: clean(row.key), from: word("states", before.state), to: word("states", row.state) }));
  }
}
