// A similarity as a bar, with a tick where the threshold stands.
import { h } from "../dom.js";
import { policy, similarity } from "../text.js";

// The bar shows 0 to 1; a cosine below 0 is an empty bar, and its number stands beside it.
const place = (value) => `${(Math.min(Math.max(value, 0), 1) * 100).toFixed(2)}%`;

/** value: cosine or null. threshold: {value, policy, target, extrapolated}. kind: the decision, which colors the bar. rate: see `policy`. */
export function meter({ value, threshold, kind, label = "Similarity", rate }) {
  const unreachable = threshold && threshold.value > 1;
  const limit = threshold ? (unreachable ? "none reaches it" : similarity(threshold.value)) : "";
  const text = `${value === null ? "none" : similarity(value)}${threshold ? `, threshold ${limit} (${policy(threshold, rate)})` : ""}`;
  return h("div", { class: "meter", data: { kind } },
    h("div", {
      class: "meter-track", role: "meter", "aria-label": label, "aria-valuemin": -1, "aria-valuemax": 1,
      "aria-valuenow": value ?? 0, "aria-valuetext": text,
    },
    value === null ? null : h("div", { class: "meter-fill", css: { width: place(value) } }),
    threshold ? h("div", { class: "meter-tick", css: { left: place(threshold.value) } }) : null),
    h("div", { class: "meter-legend", "aria-hidden": "true" },
      h("span", {}, "similarity ", h("strong", {}, similarity(value))),
      threshold ? h("span", {}, "threshold ", h("strong", {}, limit), ` (${policy(threshold, rate)})`) : null));
}

/** The same without words, for lists. */
export function bar(value, threshold, kind) {
  return h("div", { class: "meter", data: { kind }, "aria-hidden": "true" },
    h("div", { class: "meter-track" },
      h("div", { class: "meter-fill", css: { width: place(value) } }),
      threshold ? h("div", { class: "meter-tick", css: { left: place(threshold.value) } }) : null));
}

const SIGNS = { match: "✓", unknown: "?", ambiguous: "≈", rejected: "✕" };

export function badge(kind, text = kind) {
  return h("span", { class: "badge", data: { kind } }, SIGNS[kind] ? h("span", { "aria-hidden": "true" }, SIGNS[kind]) : null, text);
}
