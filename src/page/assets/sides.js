// The picture of both sides of a service: a row for each instance, with what joins or parts it.
// Owns how a difference is made to stand out: by the shape of the line, by a word, and only then by colour. Refuses to
// judge: which side has an instance, and why, is the operator's word.

import { coded, cut, h, passage, svg } from "./dom.js";
import { number, t, time, word } from "./words.js";

// Rows in the page at first, and more for each click.
const ROWS = 100;

const kindOf = ({ cluster, registry }) => (cluster ? (registry ? "both" : "cluster") : registry ? "registry" : "neither");
const places = { both: "onBoth", cluster: "onCluster", registry: "onRegistry", neither: "onNeither" };

/** The picture; `choice` keeps `only`, `rows` and `opened` while the picture is written again. */
export function picture(instances, total, choice, again) {
  // Differences first: they are what the reader came for.
  const sorted = [...instances].sort((a, b) => (kindOf(a) === "both") - (kindOf(b) === "both"));
  const different = sorted.filter((one) => kindOf(one) !== "both");
  // Without differences there is no box to take the choice back.
  const shown = choice.only && different.length > 0 ? different : sorted;
  const counts = Object.keys(places).map((kind) => [kind, instances.filter((one) => kindOf(one) === kind).length]);
  const rows = shown.slice(0, choice.rows ?? ROWS);
  const rest = shown.length - rows.length;
  const change = ({ currentTarget }) => {
    choice.only = currentTarget.checked;
    again();
  };
  const box = h("input", { type: "checkbox", id: "only", change });
  box.checked = Boolean(choice.only);
  const click = ({ currentTarget }) => {
    choice.rows = rows.length + ROWS;
    again();
    if (!currentTarget.isConnected) {
      // Nothing more is left to show: the focus goes to the first of those that came.
      document.querySelectorAll("#detail .instance")[rows.length]?.focus();
    }
  };
  return [
    h(
      "p",
      { class: "legend" },
      counts.filter(([, n]) => n > 0).map(([kind, n]) => h("span", { class: `kind on-${kind}` }, line(kind), `${number(n)} ${t(places[kind])}`)),
      different.length > 0 && different.length < instances.length && h("label", {}, box, t("onlyDifferences")),
    ),
    instances.length === 0 ? h("p", { class: "nothing" }, t("noInstances")) : table(rows, choice.opened),
    rest > 0 && h("button", { type: "button", id: "more", click }, t("more", { n: number(Math.min(rest, ROWS)) })),
    total > instances.length && h("p", { class: "notice" }, t("bounded", { n: number(instances.length), all: number(total) })),
  ];
}

function table(rows, opened) {
  const head = (text) => h("div", { role: "columnheader" }, text);
  return h(
    "div",
    { role: "table", class: "both-sides", "aria-label": t("picture") },
    h("div", { role: "row", class: "names" }, head(t("sideCluster")), head(t("link")), head(t("sideRegistry")), head(t("why"))),
    rows.map((one) => row(one, opened)),
  );
}

function row(one, opened) {
  const kind = kindOf(one);
  const rest = (key) => ({ more: t("showAll"), opened, key });
  return h(
    "div",
    { role: "row", class: `instance on-${kind}`, tabindex: "-1", "data-instance": one.instance, "data-key": one.instance },
    h("div", { role: "cell", class: "end" }, end(one.cluster, one)),
    h("div", { role: "cell", class: "link" }, line(kind), h("span", { class: "place" }, t(places[kind]))),
    h("div", { role: "cell", class: "end" }, end(one.registry, one), keys(one.records ?? [], one.instance, rest)),
    h("div", { role: "cell", class: "why" }, state(one), passage(one.why, rest(`why ${one.instance}`)), one.until && h("span", {}, ` ${t("until", { time: time(one.until) })}`)),
  );
}

function end(here, { instance }) {
  return here ? cut(instance, "code", { class: "here" }) : h("span", { class: "absent" }, t("missing"));
}

function state({ state: label }) {
  // Instances of a service that is refused have the reason of the refusal.
  const list = word("outcomes", label) === label ? "reasons" : "outcomes";
  return h("strong", { class: "outcome" }, coded(list, label), " ");
}

/** The keys of the records that name an instance. */
function keys(records, instance, rest) {
  if (records.length === 0) {
    return null;
  }
  const all = records.map((key) => h("li", {}, passage(key, rest(`key ${key}`), "code")));
  const title = records.length === 1 ? t("recordKey") : t("recordKeys", { n: number(records.length) });
  return h("details", { class: "record-keys" }, h("summary", { id: `keys-${instance}` }, title), h("ul", {}, all));
}

/** A line from side to side; broken, with a cross, where one side has nothing. */
function line(kind) {
  const dot = (x) => svg("circle", { cx: x, cy: 8, r: 3, class: "dot" });
  const hole = (x) => svg("circle", { cx: x, cy: 8, r: 3, class: "hole" });
  const stroke = (from, to, name) => svg("path", { d: `M${from} 8H${to}`, class: name });
  const cross = () => svg("path", { d: "M28 4l8 8M36 4l-8 8", class: "cross" });
  const parts = {
    both: () => [stroke(6, 58, "whole"), dot(6), dot(58)],
    cluster: () => [stroke(6, 27, "whole"), stroke(37, 55, "broken"), cross(), dot(6), hole(58)],
    registry: () => [stroke(9, 27, "broken"), stroke(37, 58, "whole"), cross(), hole(6), dot(58)],
    neither: () => [stroke(9, 27, "broken"), stroke(37, 55, "broken"), cross(), hole(6), hole(58)],
  };
  return svg("svg", { viewBox: "0 0 64 16", class: "line", "aria-hidden": "true", focusable: "false" }, ...parts[kind]());
}

