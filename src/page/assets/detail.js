// The details of one service.
// Owns which service is open, and fetching it again when it changed: one request at a time, the latest wins. Refuses to
// know the list, which says only what to open.

import { clean, coded, cut, h, passage, say, show } from "./dom.js";
import { badge, sides } from "./list.js";
import { keepFocus, redraw } from "./redraw.js";
import { hold } from "./registries.js";
import { picture } from "./sides.js";
import { inWords, spark } from "./spark.js";
import { json } from "./stream.js";
import { messageOf, number, t, time, word } from "./words.js";

// The wait after a request that failed.
const AGAIN = 2_000;
// The least time from one request to the next: each is a whole pass of the operator, if a dry one.
const REST = 1_000;

export class Detail {
  /**
   * `on` has `closed()`, which is called when the reader closes it, `isComplete()`, whether the operator has looked at
   * everything, and `isListed(key)`, whether the list has the service.
   */
  constructor(on) {
    this.place = document.getElementById("detail");
    this.on = on;
    this.key = null;
    this.answer = null;
    this.isMissing = false;
    this.last = -Infinity;
    this.choice = anew();
    this.place.addEventListener("keydown", (event) => {
      if (event.key === "Escape") {
        event.stopPropagation();
        this.on.closed();
      }
    });
  }

  /** Shows a service, or nothing. */
  open(key, focus) {
    if (key !== this.key) {
      this.#cancel();
      this.key = key;
      this.answer = null;
      this.isMissing = false;
      this.choice = anew();
      this.place.hidden = !key;
      if (key) {
        this.#skeleton();
        this.last = -Infinity;
        this.refresh();
        // The first change is fetched at once.
        this.last = -Infinity;
      }
    }
    if (key && focus) {
      this.title.focus();
    }
  }

  /** Fetches it again, after what is under way, and after a rest. */
  async refresh() {
    if (!this.key || this.fetching) {
      this.stale = Boolean(this.fetching);
      return;
    }
    clearTimeout(this.timer);
    const rest = this.last + REST - performance.now();
    if (rest > 0) {
      this.timer = setTimeout(() => this.refresh(), rest);
      return;
    }
    this.last = performance.now();
    const key = this.key;
    const fetching = new AbortController();
    this.fetching = fetching;
    this.stale = false;
    try {
      const at = key.indexOf("/");
      const path = [key.slice(0, at), key.slice(at + 1)].map(encodeURIComponent).join("/");
      this.answer = await json(`service/${path}`, fetching.signal);
      this.isMissing = false;
      say(this.trouble, "");
      this.draw();
    } catch (error) {
      if (this.fetching !== fetching) {
        return; // Another service was opened meanwhile.
      }
      if (error.status === 404) {
        this.answer = null;
        this.isMissing = true;
        keepFocus(this.body, () => show(this.body), () => this.title);
        this.judge();
        if (this.on.isListed(key)) {
          // The row and the answer are of different moments.
          this.timer = setTimeout(() => this.refresh(), AGAIN);
        }
      } else {
        say(this.trouble, t("failed", { why: clean(error.message) }));
        this.timer = setTimeout(() => this.refresh(), AGAIN);
      }
    }
    if (this.fetching === fetching) {
      this.fetching = null;
      if (this.stale) {
        this.refresh();
      }
    }
  }

  /** Fetches it again if the last answer was that there is none. */
  refreshMissing() {
    if (this.isMissing) {
      this.refresh();
    }
  }

  /** Says what it means that there is no answer: a service that is gone, or one that was not looked at so far. */
  judge() {
    if (this.isMissing) {
      say(this.trouble, t(this.on.isComplete() && !this.on.isListed(this.key) ? "gone" : "notSeen"));
    }
  }

  /** Writes everything again, in the language in force. */
  rewrite() {
    if (this.key) {
      this.#skeleton();
      this.draw();
      this.judge();
    }
  }

  draw() {
    if (this.answer) {
      keepFocus(this.body, () => this.#write(this.answer), () => this.title);
    }
  }

  #write({ row, conditions, hold: held, instances, instancesTotal }) {
    redraw(
      this.body,
      this.#head(row),
      held && hold(held, "service"),
      h("h3", {}, t("picture")),
      picture(instances ?? [], instancesTotal ?? 0, this.choice, () => this.draw()),
      h("h3", {}, t("conditions")),
      table(conditions ?? [], this.choice.opened),
    );
  }

  #cancel() {
    clearTimeout(this.timer);
    const { fetching } = this;
    this.fetching = null;
    fetching?.abort();
  }

  #skeleton() {
    const had = this.place.contains(document.activeElement);
    this.title = cut(this.key, "h2", { id: "detail-title", tabindex: "-1" });
    const label = t("closeLabel", { name: clean(this.key) });
    const click = () => this.on.closed();
    const close = h("button", { type: "button", id: "close", "aria-label": label, click }, t("close"), " ", h("kbd", {}, "Esc"));
    this.trouble = h("p", { class: "trouble", role: "status" });
    this.body = h("div", { class: "body" });
    show(this.place, h("header", {}, this.title, close), this.trouble, this.body);
    if (had) {
      this.title.focus();
    }
  }

  #head(row) {
    const counts = ["exported", "imported", "lost", "healed", "held", "skipped"].filter((name) => row[name] > 0);
    const fact = (name, ...value) => h("div", {}, h("dt", {}, t(name)), h("dd", {}, value));
    const message = messageOf(row.message && row.message !== row.reason ? row.message : "", row.messageCode);
    const rest = { more: t("showAll"), opened: this.choice.opened, key: "message" };
    return [
      h("p", { class: "verdict" }, badge(row), row.reason && h("span", {}, coded("reasons", row.reason)), passage(message, rest)),
      h(
        "dl",
        { class: "facts" },
        fact("registry", cut(row.registry, "code")),
        fact("registryName", cut(row.registryName, "code")),
        fact("service", cut(row.service, "code")),
        fact("direction", word("directions", row.direction)),
        fact("policy", cut(word("policies", row.policy)), row.discovered && ` · ${t("discovered")}`),
        fact("counts", sides(row), counts.map((name) => ` · ${number(row[name])} ${word("countWords", name)}`)),
        fact("updated", time(row.updated)),
        fact("lastVerified", time(row.lastVerified)),
        h("div", { class: "wide" }, h("dt", {}, t("latency")), h("dd", {}, spark(row.latency, 120, 24), h("small", {}, inWords(row.latency)))),
      ),
    ];
  }
}

/** The choices of a reader who has just opened a service. */
const anew = () => ({ opened: new Set() });

function table(conditions, opened) {
  const names = ["type", "status", "reason", "message", "since"];
  const line = (one) =>
    h(
      "tr",
      { "data-key": one.type },
      h("th", { scope: "row" }, coded("conditionTypes", one.type)),
      h("td", {}, coded("conditionStatus", one.status)),
      h("td", {}, coded("reasons", one.reason)),
      h("td", {}, passage(messageOf(one.message, one.code), { more: t("showAll"), opened, key: `condition ${one.type}` })),
      h("td", {}, time(one.since)),
    );
  return h(
    "div",
    { class: "scrolls" },
    h(
      "table",
      { class: "conditions" },
      h("thead", {}, h("tr", {}, names.map((name) => h("th", { scope: "col" }, t(`conditionColumns.${name}`))))),
      h("tbody", {}, conditions.map(line)),
    ),
  );
}
