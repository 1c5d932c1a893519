// The page: puts its parts together.
// Owns the head, the filters, the address (its hash keeps search and selection) and what is read out. Refuses to know
// how rows, cards and details are drawn, and how changes come.

import { clean, cut, h, say, shape, show } from "./dom.js";
import { Detail } from "./detail.js";
import { List } from "./list.js";
import { showRegistries } from "./registries.js";
import { Store, columns, states, wordsOf } from "./store.js";
import { Stream } from "./stream.js";
import { currentLanguage, currentTheme, nextLanguage, nextTheme, number, t, time, word } from "./words.js";

const $ = (id) => document.getElementById(id);
const store = new Store();
const list = new List(store, { open, sorted: () => (list.heads(), refilter()) });
const detail = new Detail((byKeyboard) => {
  open(null);
  if (byKeyboard) {
    list.focus();
  }
});

const about = { leader: null, replica: "", clusterID: "", twinspan: "", now: null, registries: [] };
const link = { state: "connecting", since: new Date() };

// ---- the head

function drawHead() {
  document.title = t("title");
  const known = about.leader !== null;
  const role = $("role");
  role.className = `role ${about.leader ? "leads" : "stands-by"}`;
  say(role, known ? t(about.leader ? "leader" : "standby") : "");
  role.hidden = !known;
  $("standby").hidden = !known || about.leader;
  say($("standby"), t("standbyLong"));
  const fact = (name, value) => value && h("div", {}, h("dt", {}, t(name)), h("dd", {}, cut(value, "code")));
  show($("facts"), fact("cluster", about.clusterID), fact("replica", about.replica), fact("version", about.twinspan));
  drawLink();
}

function drawLink() {
  const place = $("connection");
  place.className = `live is-${link.state}`;
  const since = time(link.since.toISOString());
  if (place.dataset.said !== `${link.state} ${currentLanguage()} ${since}`) {
    place.dataset.said = `${link.state} ${currentLanguage()} ${since}`;
    const more = link.state === "connecting" ? "" : t(`${link.state}Long`, { time: since });
    show(place, h("span", { class: "light", "aria-hidden": "true" }), h("strong", {}, t(link.state)), h("span", { class: "since" }, more), h("span", { id: "data-of", "aria-live": "off" }));
  }
  say($("data-of"), about.now ? t("dataOf", { time: time(about.now) }) : "");
}

function drawRegistries() {
  const focused = $("registries").contains(document.activeElement);
  if (!focused || !$("registries").querySelector(".command")) {
    showRegistries($("registries"), about.registries, about.clusterID);
  } else {
    // What the reader is about to copy stays; it is drawn again when the focus leaves.
    $("registries").addEventListener("focusout", () => setTimeout(drawRegistries), { once: true });
  }
}

// ---- the filters

function drawStates() {
  const total = store.entries.size;
  const chosen = store.filter.states;
  const place = $("states");
  const button = (state, n, content) => {
    const element = h("button", { type: "button", "data-state": state, "aria-pressed": String(state ? chosen.has(state) : chosen.size === 0) }, content, h("b", {}, number(n)));
    element.addEventListener("click", () => {
      if (!state) {
        chosen.clear();
      } else if (!chosen.delete(state)) {
        chosen.add(state);
      }
      refilter();
    });
    return element;
  };
  const written = `${currentLanguage()} ${[...chosen]} ${total} ${states.map((state) => store.stateCounts.get(state) ?? 0)}`;
  if (place.dataset.written === written) {
    return;
  }
  place.dataset.written = written;
  const focused = place.contains(document.activeElement) ? document.activeElement.dataset.state : null;
  const present = states.filter((state) => store.stateCounts.has(state) || chosen.has(state));
  show(
    place,
    button("", total, h("span", {}, t("all"))),
    present.map((state) => {
      const element = button(state, store.stateCounts.get(state) ?? 0, [shape(state), h("span", {}, word("states", state))]);
      element.classList.add(`is-${state}`);
      element.title = t(`stateMeanings.${state}`);
      return element;
    }),
  );
  if (focused !== null) {
    (place.querySelector(`[data-state="${focused}"]`) ?? place.firstElementChild).focus();
  }
}

function drawChoice(element, counts, all, chosen) {
  const names = [...counts.keys()];
  if (chosen && !counts.has(chosen)) {
    names.push(chosen);
  }
  const written = `${currentLanguage()}\n${names.length}\n${chosen}`;
  const known = element.dataset.written === written && names.every((name) => element.names.has(name));
  if (!known) {
    element.dataset.written = written;
    element.names = new Set(names);
    show(element, h("option", { value: "" }, all), names.sort().map((name) => h("option", { value: name }, clean(name))));
    element.value = chosen;
  }
}

function drawFilters() {
  drawStates();
  drawChoice($("registry"), store.registryCounts, t("allRegistries"), store.filter.registry);
  drawChoice($("namespace"), store.namespaceCounts, t("allNamespaces"), store.filter.namespace);
  const [n, all] = [store.shown.length, store.entries.size].map(number);
  const place = $("shown");
  say(place, t("shown", { n, all }));
  place.title = t("shownLabel", { n, all });
  $("empty").hidden = store.shown.length > 0;
  say($("empty"), about.leader === null ? t("loading") : store.entries.size === 0 ? t("none") : t("empty"));
}

function refilter() {
  store.arrange();
  $("grid").scrollTop = 0;
  drawFilters();
  list.paint();
  keepHash();
}

let searching = 0;
$("search").addEventListener("input", () => {
  searching ||= requestAnimationFrame(() => {
    searching = 0;
    store.filter.words = wordsOf($("search").value);
    refilter();
  });
});
$("search-form").addEventListener("submit", (event) => {
  event.preventDefault();
  list.focus();
});
for (const name of ["registry", "namespace"]) {
  $(name).addEventListener("change", () => {
    store.filter[name] = $(name).value;
    refilter();
  });
}

// ---- the address

function keepHash() {
  const { filter, order } = store;
  const parts = {
    q: $("search").value.trim(),
    state: [...filter.states].join(),
    registry: filter.registry,
    namespace: filter.namespace,
    sort: order.column === "state" && !order.down ? "" : `${order.down ? "-" : ""}${order.column}`,
    service: detail.key ?? "",
  };
  const hash = new URLSearchParams(Object.entries(parts).filter(([, value]) => value)).toString();
  if (hash !== location.hash.slice(1)) {
    history.replaceState(null, "", hash ? `#${hash}` : location.pathname);
  }
}

function readHash() {
  const parts = new URLSearchParams(location.hash.slice(1));
  const get = (name) => parts.get(name) ?? "";
  const sort = get("sort");
  const column = sort.replace(/^-/, "");
  $("search").value = get("q");
  store.filter = {
    words: wordsOf(get("q")),
    states: new Set(get("state").split(",").filter((state) => states.includes(state))),
    registry: get("registry"),
    namespace: get("namespace"),
  };
  store.order = columns.includes(column) ? { column, down: sort.startsWith("-") } : { column: "state", down: false };
  list.heads();
  store.arrange();
  showService(get("service") || null, false);
}

function showService(key, focus) {
  $("work").classList.toggle("has-detail", Boolean(key));
  list.select(key);
  detail.open(key, focus);
}

function open(key, byKeyboard) {
  showService(key, byKeyboard);
  keepHash();
}

addEventListener("hashchange", () => {
  readHash();
  drawFilters();
  list.paint();
});

// ---- what is read out

// A reader who listens is told of what changed, at most once in this time.
const QUIET = 2_000;
let news = [];
let telling = 0;

function tell(text) {
  news.push(text);
  telling ||= setTimeout(() => {
    telling = 0;
    const text = news.length > 3 ? t("saidMany", { n: number(news.length) }) : news.join("; ");
    news = [];
    show($("said"), h("p", {}, text));
  }, QUIET);
}

function tellOf(before, row) {
  if (before && before.state !== row.state) {
    tell(t("saidChange", { name: clean(row.key), from: word("states", before.state), to: word("states", row.state) }));
  }
}

// ---- changes

function drawAll() {
  drawHead();
  drawRegistries();
  drawFilters();
  list.paint();
}

function leads(leader) {
  if (about.leader !== null && about.leader !== leader) {
    tell(t(leader ? "saidLeader" : "saidStandby"));
  }
  about.leader = leader;
}

const stream = new Stream({
  state(whole) {
    const first = about.leader === null;
    leads(Boolean(whole.leader));
    const { replica, clusterID, twinspan, now, registries } = whole;
    Object.assign(about, { replica, clusterID, twinspan, now, registries });
    store.reset(whole.services);
    drawAll();
    if (first && detail.key) {
      list.reveal(detail.key);
    } else {
      detail.refresh();
    }
  },
  change(part) {
    const led = about.leader;
    leads(Boolean(part.leader));
    about.now = part.now ?? about.now;
    if (part.registries?.length > 0) {
      about.registries = part.registries;
      drawRegistries();
    }
    const rows = part.services ?? [];
    const gone = part.gone ?? [];
    for (const row of rows) {
      tellOf(store.entries.get(row.key)?.row, row);
    }
    store.apply(rows, gone);
    list.touched(rows.map((row) => row.key));
    drawFilters();
    list.paint();
    if (led !== about.leader) {
      drawHead();
    } else {
      drawLink();
    }
    if (detail.key && (rows.some((row) => row.key === detail.key) || gone.includes(detail.key))) {
      detail.refresh();
    }
  },
  up: () => joined("live"),
  down: () => joined("reconnecting"),
});

function joined(state) {
  if (link.state !== state) {
    if (link.state !== "connecting") {
      tell(t(state === "live" ? "saidLive" : "saidLost"));
    }
    Object.assign(link, { state, since: new Date() });
    drawLink();
  }
}

// ---- the choices of the reader

function drawWords() {
  document.documentElement.lang = currentLanguage() === "zh" ? "zh-CN" : "en";
  for (const element of document.querySelectorAll("[data-text]")) {
    say(element, t(element.dataset.text));
  }
  for (const element of document.querySelectorAll("[data-label]")) {
    element.setAttribute("aria-label", t(element.dataset.label));
  }
  $("search").placeholder = t("searchHint");
  const language = $("language");
  say(language, t("other"));
  language.lang = currentLanguage() === "zh" ? "en" : "zh-CN";
  language.setAttribute("aria-label", t("otherLabel"));
  drawTheme();
  list.heads();
}

function drawTheme() {
  const theme = currentTheme();
  document.documentElement.dataset.theme = theme;
  say($("theme"), t("themeLabel", { theme: word("themes", theme) }));
}

$("language").addEventListener("click", () => {
  nextLanguage();
  drawWords();
  drawAll();
  detail.rewrite();
});
$("theme").addEventListener("click", () => {
  nextTheme();
  drawTheme();
});

$("skip").addEventListener("click", (event) => {
  event.preventDefault(); // The hash is the page's memory, and not a place in it.
  list.focus();
});

addEventListener("keydown", (event) => {
  const writing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
  if (event.key === "/" && !writing && !event.ctrlKey && !event.metaKey && !event.altKey) {
    event.preventDefault();
    $("search").focus();
    $("search").select();
  } else if (event.key === "Escape" && event.target === $("search") && $("search").value === "") {
    list.focus();
  } else if (event.key === "Escape" && event.target === $("grid") && detail.key) {
    open(null);
  }
});
addEventListener("online", () => stream.hurry());
document.addEventListener("visibilitychange", () => document.hidden || stream.hurry());

drawWords();
readHash();
drawAll();
stream.start();
