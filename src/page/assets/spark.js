// A line of the last latencies.
// Owns its drawing, and the same in words for those who do not see it. Refuses to judge whether a latency is good.

import { h, svg } from "./dom.js";
import { duration, t } from "./words.js";

/** The latest, the median and the highest, in words. */
export function inWords(latency) {
  if (!latency?.length) {
    return t("noLatency");
  }
  const sorted = [...latency].sort((a, b) => a - b);
  return t("latencyLabel", {
    last: duration(latency.at(-1)),
    median: duration(sorted[(sorted.length - 1) >> 1]),
    max: duration(sorted.at(-1)),
  });
}

/** The line, and the latest value beside it. */
export function spark(latency, width, height) {
  if (!latency?.length) {
    return h("span", { class: "spark" }, h("span", { class: "nothing" }, "–"), h("span", { class: "said" }, t("noLatency")));
  }
  const highest = Math.max(...latency, 1);
  const step = (width - 4) / Math.max(latency.length - 1, 1);
  // The latest is always at the right end.
  const left = latency.length > 1 ? 2 : width - 2;
  const points = latency.map((ms, at) => [left + at * step, height - 2 - (ms / highest) * (height - 4)].map((n) => n.toFixed(1)));
  const [x, y] = points.at(-1);
  const line = svg("polyline", { points: points.map((point) => point.join(",")).join(" "), class: "line" });
  const drawing = svg(
    "svg",
    { viewBox: `0 0 ${width} ${height}`, width, height, "aria-hidden": "true", focusable: "false" },
    latency.length > 1 ? line : null,
    svg("circle", { cx: x, cy: y, r: 1.8, class: "dot" }),
  );
  const words = inWords(latency);
  return h(
    "span",
    { class: "spark", title: words },
    drawing,
    h("span", { class: "latest", "aria-hidden": "true" }, duration(latency.at(-1))),
    h("span", { class: "said" }, words),
  );
}
