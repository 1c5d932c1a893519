// The registries: one card each.
// Owns what a card says about a session, its records, its hold and the clusters that share it. Refuses to keep anything
// but which long texts the reader opened: the cards are drawn anew when a registry changed.

import { coded, command, cut, h, passage, shape } from "./dom.js";
import { redraw } from "./redraw.js";
import { messageOf, number, t, time, word } from "./words.js";

// The long texts that the reader opened.
const opened = new Set();

/** Draws the cards; `none` is said where there is none. `cluster` is the ID of the cluster that looks. */
export function showRegistries(place, registries, cluster, none) {
  redraw(place, registries.length === 0 ? h("p", { class: "nothing" }, none) : registries.map((registry) => card(registry, cluster)));
}

// A session that is not this has no complete view.
const WELL = "Synced";

function card(registry, cluster) {
  const ready = registry.ready ?? {};
  const isReady = ready.status === "True" && registry.session === WELL;
  const state = isReady ? "InSync" : registry.session === WELL ? "Differs" : "Unknown";
  const session = `${t("session")}: ${registry.session}`;
  return h(
    "article",
    {
      class: `card ${registry.hold ? "has-hold" : ""} ${isReady ? "" : "is-in-trouble"}`,
      "data-registry": registry.name,
      "data-key": registry.name,
    },
    h(
      "header",
      {},
      cut(registry.name, "h3"),
      h("span", { class: `badge is-${state}`, title: session }, shape(state), cut(word("reasons", registry.session))),
      h("span", { class: "format" }, registry.format, " ", registry.prefix ? cut(registry.prefix, "code") : t("noPrefix")),
    ),
    !isReady && trouble(ready, registry.name),
    notes(registry.notes ?? [], registry.name),
    h(
      "dl",
      { class: "numbers" },
      Object.keys({ own: 0, foreign: 0, healed: 0, undecodable: 0 }).map((kind) => {
        const n = registry.records?.[kind] ?? 0;
        return h("div", { class: n ? "" : "nothing", "data-key": kind }, h("dt", {}, t(kind)), h("dd", {}, number(n)));
      }),
      h("div", {}, h("dt", {}, t("lastVerified")), h("dd", {}, time(registry.lastVerified))),
      clusters(registry.clusters ?? [], cluster),
    ),
    registry.hold && hold(registry.hold, `registry-${registry.name}`),
  );
}

function trouble(ready, name) {
  return h("p", { class: "trouble" }, ready.reason ? explained(ready, `ready ${name}`) : t("notReady"));
}

/** The conditions that are true and still have something to say. */
function notes(all, name) {
  const lines = all.map((one) => h("li", { "data-key": one.type }, explained(one, `note ${name} ${one.type}`)));
  return lines.length > 0 && h("ul", { class: "notes", "aria-label": t("notes") }, lines);
}

function explained({ reason, message, code }, key) {
  const text = messageOf(message, code);
  return [h("strong", { class: "text" }, coded("reasons", reason), text ? ": " : ""), passage(text, { more: t("showAll"), opened, key })];
}

function clusters(all, own) {
  if (all.length < 2) {
    return null;
  }
  const names = all.map((name) => h("li", {}, cut(name, "code"), name === own && h("span", {}, ` (${t("thisCluster")})`)));
  return h("div", { class: "clusters" }, h("dt", {}, t("shared", { n: number(all.length) })), h("dd", {}, h("ul", {}, names)));
}

/** A hold, and the command that releases it. `id` is the beginning of the ids in it. */
export function hold({ held, since, until, hash, command: approve }, id) {
  const what = held === 1 ? t("holdOne") : held ? t("hold", { n: number(held) }) : t("holdUnknown");
  return h(
    "div",
    // Another hold is another element: a click that began on the command of one never copies that of another.
    { class: "hold", "data-key": `hold ${hash} ${approve}` },
    h("p", {}, shape("Held"), h("strong", {}, what), " ", t("holdTimes", { since: time(since), until: time(until) })),
    approve && h("p", {}, t("holdAdvice")),
    approve && command(approve, { copy: t("copy"), copied: t("copied"), label: t("copyLabel"), failed: t("copyFailed") }, id),
  );
}
