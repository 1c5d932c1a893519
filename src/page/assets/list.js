// The list of services: a grid that holds only the rows in view.
// Owns scrolling, the row that the keyboard is on, and the sorting by heads of columns. Refuses to know where rows come
// from: the store has them in order.

import { clean, cut, h, say, shape, show, svg, tone } from "./dom.js";
import { spark } from "./spark.js";
import { columns, sidesOf } from "./store.js";
import { currentEpoch, number, t, time, word } from "./words.js";

// The height of a row in page.css.
const HEIGHT = 34;
// Rows beyond the edges, so that a slow scroll finds them drawn.
const BEYOND = 6;
// Columns whose interesting end is the high one.
const HIGH_FIRST = new Set(["sides", "exported", "imported", "lost", "held", "skipped", "updated", "verified", "latency"]);

// The value and the look of each cell: a cell is written again only if what it shows is another.
const cells = {
  state: [(row) => [row.state, row.reason], (row, cell) => show(cell, badge(row))],
  service: [(row) => row.key, (row, cell) => show(cell, cut(row.key, "span", { class: "name" }))],
  registryName: [(row) => row.registryName, (row, cell) => show(cell, cut(row.registryName))],
  direction: [
    (row) => row.direction,
    (row, cell) => show(cell, arrow(row.direction), h("span", {}, word("directions", row.direction))),
  ],
  sides: [
    (row) => Object.values(sidesOf(row)),
    (row, cell) => show(cell, sides(row)),
  ],
  exported: [(row) => row.exported, (row, cell) => count(row.exported, cell)],
  imported: [(row) => row.imported, (row, cell) => count(row.imported, cell)],
  lost: [(row) => row.lost, (row, cell) => count(row.lost, cell, "Lost")],
  held: [(row) => row.held, (row, cell) => count(row.held, cell, "Held")],
  skipped: [(row) => row.skipped, (row, cell) => count(row.skipped, cell, "Differs")],
  updated: [(row) => row.updated, (row, cell) => say(cell, time(row.updated))],
  verified: [(row, store) => store.verifiedOf(row), (row, cell, store) => say(cell, time(store.verifiedOf(row)))],
  latency: [(row) => row.latency, (row, cell) => show(cell, spark(row.latency, 60, 20))],
};

/** A state as shape and word; its reason is the title. */
export function badge({ state, reason }) {
  const title = [t(`stateMeanings.${tone(state)}`), clean(reason)].filter(Boolean).join(" · ");
  return h("span", { class: `badge is-${tone(state)}`, title }, shape(tone(state)), h("span", {}, word("states", state)));
}

/** The numbers of both sides; the sign between them says whether they are equal. */
export function sides(row) {
  const { cluster, registry } = sidesOf(row);
  const same = cluster === registry;
  return h(
    "span",
    { class: same ? "sides" : "sides apart" },
    h("span", { "aria-hidden": "true" }, h("span", {}, number(cluster)), h("span", { class: "sign" }, same ? "=" : "≠"), h("span", {}, number(registry))),
    h("span", { class: "said" }, t("sidesLabel", { cluster: number(cluster), registry: number(registry) })),
  );
}

function count(n, cell, attention) {
  say(cell, n ? number(n) : "–");
  cell.classList.toggle("nothing", !n);
  if (attention) {
    cell.classList.toggle(`is-${attention}`, Boolean(n));
  }
}

const arrows = { Both: "M4 4 1 7l3 3M1 7h12M10 4l3 3-3 3", Export: "M1 7h12M10 4l3 3-3 3", Import: "M4 4 1 7l3 3M1 7h12" };

function arrow(direction) {
  const path = svg("path", { d: arrows[direction] ?? "", fill: "none", stroke: "currentColor" });
  return svg("svg", { viewBox: "0 0 14 14", class: "shape", "aria-hidden": "true", focusable: "false" }, path);
}

export class List {
  /** `on` has `open(key, byKeyboard)` and `sorted()`. */
  constructor(store, on) {
    this.store = store;
    this.on = on;
    this.grid = document.getElementById("grid");
    this.body = document.getElementById("rows");
    this.head = document.getElementById("head");
    this.pool = [];
    this.active = null; // the key of the row that the keyboard is on
    this.selected = null;
    this.changed = new Set();
    this.frame = 0;
    this.grid.setAttribute("aria-colcount", columns.length);
    this.grid.addEventListener("scroll", () => this.paint(), { passive: true });
    this.grid.addEventListener("keydown", (event) => this.#key(event));
    this.body.addEventListener("click", (event) => this.#click(event));
    new ResizeObserver(() => this.paint()).observe(this.grid);
    this.#heads();
  }

  /** Draws once in the next frame, however often it is asked. */
  paint() {
    this.frame ||= requestAnimationFrame(() => {
      this.frame = 0;
      this.#draw();
    });
  }

  /** Rows that light up when they are drawn next. */
  touched(keys) {
    this.changed = new Set(keys);
  }

  /** Draws rows that are the same and show another time: that of the last audit of their registry. */
  refresh() {
    for (const slot of this.pool) {
      slot.row = null;
    }
    this.paint();
  }

  /** The service whose details are open. */
  select(key) {
    this.selected = key;
    if (key) {
      this.active = key;
    }
    this.paint();
  }

  /** Scrolls a row into view, if it is among those shown. */
  reveal(key) {
    const at = this.store.placeOf(key);
    if (at >= 0) {
      // A list that was never drawn has no room to scroll in yet.
      this.#makeRoom();
      const [top, room] = [at * HEIGHT, this.grid.clientHeight - this.#headHeight() - HEIGHT];
      this.grid.scrollTop = Math.min(Math.max(this.grid.scrollTop, top - room), top);
    }
  }

  focus() {
    this.grid.focus({ preventScroll: true });
  }

  #headHeight() {
    return this.head.parentElement.offsetHeight;
  }

  #draw() {
    const { shown } = this.store;
    const room = Math.max(this.grid.clientHeight - this.#headHeight(), HEIGHT);
    const first = Math.max(Math.floor(this.grid.scrollTop / HEIGHT) - BEYOND, 0);
    const last = Math.min(Math.ceil((this.grid.scrollTop + room) / HEIGHT) + BEYOND, shown.length);
    this.#makeRoom();
    this.grid.setAttribute("aria-rowcount", shown.length + 1);
    this.#provide(Math.ceil(room / HEIGHT) + 2 * BEYOND + 1);
    const used = new Set();
    for (let at = first; at < last; at += 1) {
      const slot = this.pool[at % this.pool.length];
      used.add(slot);
      this.#fill(slot, at, shown[at].row);
    }
    for (const slot of this.pool) {
      if (!used.has(slot) && slot.at !== -1) {
        slot.at = -1;
        slot.row = null;
        slot.element.hidden = true;
      }
    }
    this.changed.clear();
    const slot = this.pool.find(({ at, key }) => at !== -1 && key === this.active);
    if (slot) {
      this.grid.setAttribute("aria-activedescendant", slot.element.id);
    } else {
      this.grid.removeAttribute("aria-activedescendant");
    }
  }

  #makeRoom() {
    this.body.style.height = `${this.store.shown.length * HEIGHT}px`;
  }

  /** Keeps as many row elements as fit; they are filled again and again. */
  #provide(wanted) {
    while (this.pool.length < wanted) {
      const parts = columns.map((name, at) => h("div", { role: "gridcell", class: `cell c-${name}`, "aria-colindex": at + 1 }));
      const element = h("div", { role: "row", class: "row", id: `row-${this.pool.length}`, hidden: true }, parts);
      this.body.append(element);
      this.pool.push({ element, parts, shown: [], at: -1, key: null, row: null, epoch: -1 });
    }
    if (this.pool.length > 2 * wanted) {
      this.pool.splice(wanted).forEach(({ element }) => element.remove());
    }
  }

  #fill(slot, at, row) {
    const { element, parts } = slot;
    if (slot.at !== at) {
      slot.at = at;
      element.hidden = false;
      element.style.transform = `translateY(${at * HEIGHT}px)`;
      element.setAttribute("aria-rowindex", at + 2);
      element.classList.toggle("odd", at % 2 === 1);
    }
    if (slot.row !== row || slot.epoch !== currentEpoch()) {
      const anew = slot.epoch !== currentEpoch();
      slot.row = row;
      slot.key = row.key;
      slot.epoch = currentEpoch();
      columns.forEach((name, column) => {
        const [value, write] = cells[name];
        const shown = String(value(row, this.store));
        if (anew || slot.shown[column] !== shown) {
          slot.shown[column] = shown;
          write(row, parts[column], this.store);
        }
      });
      element.classList.remove("changed");
      if (this.changed.has(row.key)) {
        void element.offsetWidth; // The animation begins anew only after a layout without it.
        element.classList.add("changed");
      }
    }
    element.classList.toggle("active", row.key === this.active);
    element.setAttribute("aria-selected", String(row.key === this.selected));
  }

  #click(event) {
    const element = event.target.closest(".row");
    // Rows may have moved in the store since they were drawn: what was clicked is what was shown.
    const key = this.pool.find((one) => one.element === element && one.at !== -1)?.key;
    if (key) {
      this.active = key;
      this.on.open(key, false);
      this.paint();
    }
  }

  #key(event) {
    if (event.target !== this.grid || event.ctrlKey || event.altKey || event.metaKey) {
      return;
    }
    const { shown } = this.store;
    const now = this.active === null ? -1 : this.store.placeOf(this.active);
    const page = Math.max(Math.floor(this.grid.clientHeight / HEIGHT) - 2, 1);
    const moves = { ArrowDown: now + 1, ArrowUp: now - 1, PageDown: now + page, PageUp: now - page, Home: 0, End: shown.length - 1 };
    if (event.key in moves && shown.length > 0) {
      event.preventDefault();
      const at = Math.min(Math.max(moves[event.key], 0), shown.length - 1);
      this.active = shown[at].row.key;
      this.reveal(this.active);
      this.paint();
    } else if ((event.key === "Enter" || event.key === " ") && now >= 0) {
      event.preventDefault();
      this.on.open(this.active, true);
    }
  }

  #heads() {
    const heads = columns.map((name, at) => {
      const button = h("button", { type: "button", tabindex: "-1", "data-column": name });
      button.addEventListener("click", () => this.#sort(name));
      return h("div", { role: "columnheader", class: `cell c-${name}`, "aria-colindex": at + 1 }, button);
    });
    show(this.head, heads);
    // One stop of the Tab key; arrows go on from there.
    this.head.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (step) {
        event.preventDefault();
        const buttons = [...this.head.querySelectorAll("button")].filter((button) => button.offsetParent !== null);
        const at = buttons.indexOf(event.target) + step;
        buttons[Math.min(Math.max(at, 0), buttons.length - 1)].focus();
      } else if (event.key === "ArrowDown") {
        event.preventDefault();
        this.focus();
      }
    });
    this.heads();
  }

  /** Writes the heads of the columns, in the language in force. */
  heads() {
    const { column, down } = this.store.order;
    for (const button of this.head.querySelectorAll("button")) {
      const name = button.dataset.column;
      const mine = name === column;
      show(button, h("span", {}, t(`columns.${name}`)), mine && h("span", { class: "order", "aria-hidden": "true" }, down ? "▾" : "▴"));
      button.title = t("sortBy", { column: t(`columns.${name}`) });
      button.tabIndex = mine ? 0 : -1;
      button.parentElement.setAttribute("aria-sort", mine ? (down ? "descending" : "ascending") : "none");
    }
  }

  #sort(name) {
    const { order } = this.store;
    this.store.order = { column: name, down: order.column === name ? !order.down : HIGH_FIRST.has(name) };
    this.on.sorted();
  }
}
