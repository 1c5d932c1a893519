// The registries: one card each.
// Owns what a card says about a session, its records, its hold and the clusters that share it. Refuses to keep anything:
// the cards are written again when a registry changed.

import { command, cut, h, passage, shape, show } from "./dom.js";
import { number, t, time } from "./words.js";

/** Writes the cards. `cluster` is the ID of the cluster that looks. */
export function showRegistries(place, registries, cluster) {
  if (registries.length === 0) {
    show(place, h("p", { class: "nothing" }, t("noRegistries")));
    return;
  }
  show(place, registries.map((registry) => card(registry, cluster)));
}

// A session that is not this has no complete view.
const WELL = "Synced";

function card(registry, cluster) {
  const ready = registry.ready ?? {};
  const isReady = ready.status === "True" && registry.session === WELL;
  const state = isReady ? "InSync" : registry.session === WELL ? "Differs" : "Unknown";
  const name = cut(registry.name, "h3");
  return h(
    "article",
    { class: `card ${registry.hold ? "has-hold" : ""} ${isReady ? "" : "is-in-trouble"}`, "data-registry": registry.name },
    h(
      "header",
      {},
      name,
      h("span", { class: `badge is-${state}`, title: t("session") }, shape(state), cut(registry.session)),
      h("span", { class: "format" }, registry.format, " ", registry.prefix ? cut(registry.prefix, "code") : t("noPrefix")),
    ),
    !isReady && trouble(ready),
    h(
      "dl",
      { class: "numbers" },
      Object.keys({ own: 0, foreign: 0, healed: 0, undecodable: 0 }).map((kind) => {
        const n = registry.records?.[kind] ?? 0;
        return h("div", { class: n ? "" : "nothing" }, h("dt", {}, t(kind)), h("dd", {}, number(n)));
      }),
      h("div", {}, h("dt", {}, t("lastVerified")), h("dd", {}, time(registry.lastVerified))),
      clusters(registry.clusters ?? [], cluster),
    ),
    registry.hold && hold(registry.hold, `registry-${registry.name}`),
  );
}

function trouble(ready) {
  const word = ready.reason ? h("strong", { class: "text" }, cut(ready.reason), ready.message ? ": " : "") : t("notReady");
  return h("p", { class: "trouble" }, word, passage(ready.message, t("showAll")));
}

function clusters(all, own) {
  if (all.length < 2) {
    return null;
  }
  const names = all.map((name) => h("li", {}, cut(name, "code"), name === own && h("span", {}, ` (${t("thisCluster")})`)));
  return h("div", { class: "clusters" }, h("dt", {}, t("shared", { n: number(all.length) })), h("dd", {}, h("ul", {}, names)));
}

/** A hold, and the command that releases it. `id` is the beginning of the ids in it. */
export function hold({ held, since, until, command: approve }, id) {
  const what = held === 1 ? t("holdOne") : held ? t("hold", { n: number(held) }) : t("holdUnknown");
  return h(
    "div",
    { class: "hold" },
    h("p", {}, shape("Held"), h("strong", {}, what), " ", t("holdTimes", { since: time(since), until: time(until) })),
    approve && h("p", {}, t("holdAdvice")),
    approve && command(approve, { copy: t("copy"), copied: t("copied"), label: t("copyLabel"), failed: t("copyFailed") }, id),
  );
}
