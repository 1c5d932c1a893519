// The controls that narrow the list: the search, the states, a registry, a namespace.
// Owns the controls and the numbers on them. Refuses to filter: the store does.

import { clean, h, say, shape } from "./dom.js";
import { keepFocus, redraw } from "./redraw.js";
import { states, wordsOf } from "./store.js";
import { currentLanguage, number, t, word } from "./words.js";

const $ = (id) => document.getElementById(id);

export class Filters {
  /** `on` has `changed()`, and `submitted()` for the key Enter in the search. */
  constructor(store, on) {
    this.store = store;
    this.on = on;
    // States that a service had: their buttons stay, so that no button moves under the mouse when the last one leaves.
    this.met = new Set();
    this.names = { registry: new Set(), namespace: new Set() };
    let searching = 0;
    // However fast somebody types, a frame searches once.
    $("search").addEventListener("input", () => {
      searching ||= requestAnimationFrame(() => {
        searching = 0;
        store.filter.words = wordsOf($("search").value);
        on.changed();
      });
    });
    $("search-form").addEventListener("submit", (event) => {
      event.preventDefault();
      on.submitted();
    });
    for (const name of ["registry", "namespace"]) {
      $(name).addEventListener("change", () => {
        store.filter[name] = $(name).value;
        on.changed();
      });
    }
  }

  /** Writes all of them. Before the operator has looked at everything, no service is said to be absent. */
  draw({ isKnown, isComplete }) {
    const { store } = this;
    this.#states();
    this.#choice("registry", store.registryCounts, t("allRegistries"));
    this.#choice("namespace", store.namespaceCounts, t("allNamespaces"));
    const [n, all] = [store.shown.length, store.entries.size].map(number);
    say($("shown"), t("shown", { n, all }));
    $("shown").title = this.answer();
    $("empty").hidden = store.shown.length > 0;
    say($("empty"), t(isKnown ? (isComplete ? (store.entries.size === 0 ? "none" : "empty") : "firstLook") : "loading"));
  }

  /** The number of services that are shown, in words. */
  answer() {
    const [n, all] = [this.store.shown.length, this.store.entries.size].map(number);
    return t("shownLabel", { n, all });
  }

  #states() {
    const { filter, entries, stateCounts } = this.store;
    stateCounts.forEach((_, state) => this.met.add(state));
    const place = $("states");
    const counts = states.map((state) => stateCounts.get(state) ?? 0);
    const written = `${currentLanguage()} ${[...filter.states]} ${entries.size} ${counts}`;
    if (place.dataset.written === written) {
      return;
    }
    place.dataset.written = written;
    const present = states.filter((state) => this.met.has(state) || filter.states.has(state));
    const all = h("span", {}, t("all"));
    const buttons = [
      this.#state("", entries.size, filter.states.size === 0, {}, all),
      ...present.map((state) =>
        this.#state(
          state,
          stateCounts.get(state) ?? 0,
          filter.states.has(state),
          { class: `is-${state}`, title: t(`stateMeanings.${state}`) },
          [shape(state), h("span", {}, word("states", state))],
        ),
      ),
    ];
    keepFocus(place, () => redraw(place, buttons), () => place.firstElementChild);
  }

  /** A button for a state; the one without a state is for all. */
  #state(state, n, isChosen, attributes, content) {
    const chosen = this.store.filter.states;
    const click = () => {
      if (!state) {
        chosen.clear();
      } else if (!chosen.delete(state)) {
        chosen.add(state);
      }
      this.on.changed();
    };
    const all = { type: "button", "data-state": state, "data-key": state, "aria-pressed": String(isChosen), click, ...attributes };
    return h("button", all, content, h("b", {}, number(n)));
  }

  /** A list of names, written anew only when a name came or went. */
  #choice(name, counts, all) {
    const element = $(name);
    const chosen = this.store.filter[name];
    const names = new Set(counts.keys());
    if (chosen) {
      names.add(chosen);
    }
    const known = this.names[name];
    const same = known.size === names.size && [...names].every((one) => known.has(one));
    if (!same || element.dataset.language !== currentLanguage()) {
      element.dataset.language = currentLanguage();
      this.names[name] = names;
      const option = (value, text) => h("option", { value, "data-key": value }, text);
      redraw(element, option("", all), [...names].sort().map((one) => option(one, clean(one))));
    }
    element.value = chosen;
  }
}
