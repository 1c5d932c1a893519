// The page: puts its parts together.
// Owns the address, whose hash keeps search and selection, and the choices of the reader. Refuses to know how anything
// is drawn, and how changes come.

import { Detail } from "./detail.js";
import { say } from "./dom.js";
import { Filters } from "./filters.js";
import { Head } from "./head.js";
import { List } from "./list.js";
import { answer, tellOf } from "./news.js";
import { keepFocus } from "./redraw.js";
import { showRegistries } from "./registries.js";
import { Store, columns, states, wordsOf } from "./store.js";
import { Stream } from "./stream.js";
import { currentLanguage, currentTheme, nextLanguage, nextTheme, t, word } from "./words.js";

const $ = (id) => document.getElementById(id);

let registries = [];
const store = new Store();
const head = new Head();
const list = new List(store, {
  open,
  sorted() {
    list.heads();
    refilter();
  },
});
const filters = new Filters(store, {
  changed() {
    refilter();
    answer(() => filters.answer());
  },
  submitted: () => list.focus(),
});
const detail = new Detail({
  closed() {
    open(null, false);
    list.focus();
  },
  isComplete: () => head.isComplete,
  isListed: (key) => store.entries.has(key),
});

function refilter() {
  store.arrange();
  $("grid").scrollTop = 0;
  drawList();
  keepHash();
}

function drawList() {
  filters.draw(head);
  list.paint();
}

function drawRegistries() {
  const place = $("registries");
  const none = t(head.isKnown ? (head.isComplete ? "noRegistries" : "firstLook") : "loading");
  keepFocus(place, () => showRegistries(place, registries, head.about.clusterID, none), () => place);
}

// ---- the address

// Browsers refuse an address that changes with each key of a fast typist.
const TYPED = 250;
let keeping = 0;
// The address that the page read or wrote last. Another one is a link that the reader followed, and is read next.
let known = location.hash;

function keepHash() {
  clearTimeout(keeping);
  keeping = setTimeout(writeHash, TYPED);
}

function writeHash() {
  clearTimeout(keeping);
  if (location.hash !== known) {
    return;
  }
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
    known = location.hash;
  }
}

function readHash() {
  clearTimeout(keeping);
  known = location.hash;
  const parts = new URLSearchParams(location.hash.slice(1));
  const get = (name) => parts.get(name) ?? "";
  const column = get("sort").replace(/^-/, "");
  $("search").value = get("q");
  store.filter = {
    words: wordsOf(get("q")),
    states: new Set(get("state").split(",").filter((state) => states.includes(state))),
    registry: get("registry"),
    namespace: get("namespace"),
  };
  store.order = columns.includes(column) ? { column, down: get("sort").startsWith("-") } : { column: "state", down: false };
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
  writeHash();
}

addEventListener("hashchange", () => {
  readHash();
  drawList();
  list.reveal(detail.key);
});

// ---- changes

const stream = new Stream({
  state(whole) {
    const first = !head.isKnown;
    registries = whole.registries;
    store.verify(registries);
    store.reset(whole.services);
    head.learn(whole);
    drawRegistries();
    drawList();
    if (first) {
      list.reveal(detail.key);
      detail.refreshMissing();
    } else {
      detail.refresh();
    }
    detail.judge();
  },
  change(part) {
    const { registries: cards, services: rows = [], gone = [] } = part;
    const { isComplete } = head;
    head.learn(part);
    if (cards) {
      registries = cards;
      store.verify(registries);
      list.refresh();
      drawRegistries();
    }
    for (const row of rows) {
      const before = store.entries.get(row.key)?.row;
      if (before && (store.admits(before) || store.admits(row))) {
        tellOf(before, row);
      }
    }
    store.apply(rows, gone);
    list.touched(rows.map((row) => row.key));
    drawList();
    if (rows.some((row) => row.key === detail.key) || gone.includes(detail.key)) {
      detail.refresh();
    }
    if (head.isComplete !== isComplete) {
      drawRegistries();
      detail.judge();
    }
  },
  alive: ({ now }) => head.lives(now),
  crowded: () => head.joined("crowded"),
  up: () => head.joined("live"),
  down: () => head.joined("reconnecting"),
});

addEventListener("online", () => stream.hurry());
document.addEventListener("visibilitychange", () => document.hidden || stream.hurry());

// ---- the choices of the reader

function drawWords() {
  document.title = t("title");
  document.documentElement.lang = currentLanguage() === "zh" ? "zh-CN" : "en";
  for (const element of document.querySelectorAll("[data-text]")) {
    say(element, t(element.dataset.text));
  }
  for (const element of document.querySelectorAll("[data-label]")) {
    element.setAttribute("aria-label", t(element.dataset.label));
  }
  $("search").placeholder = t("searchHint");
  $("language").lang = currentLanguage() === "zh" ? "en" : "zh-CN";
  $("language").setAttribute("aria-label", t("otherLabel"));
  say($("language"), t("other"));
  drawTheme();
  list.heads();
  head.draw();
  drawRegistries();
  drawList();
  detail.rewrite();
}

function drawTheme() {
  document.documentElement.dataset.theme = currentTheme();
  say($("theme"), t("themeLabel", { theme: word("themes", currentTheme()) }));
}

$("language").addEventListener("click", () => {
  nextLanguage();
  drawWords();
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
  const writes = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
  if (event.key === "/" && !writes && !event.ctrlKey && !event.metaKey && !event.altKey) {
    event.preventDefault();
    $("search").focus();
    $("search").select();
  } else if (event.key === "Escape" && event.target === $("search") && $("search").value === "") {
    list.focus();
  } else if (event.key === "Escape" && event.target === $("grid") && detail.key) {
    open(null, false);
  }
});

readHash();
drawWords();
stream.start();
