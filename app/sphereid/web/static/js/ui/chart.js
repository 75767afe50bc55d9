// The calibration curve: at which similarity how many impostor comparisons still match.
import { h, svg } from "../dom.js";
import { similarity } from "../text.js";

const SIZE = { width: 560, height: 290, left: 62, right: 16, top: 26, bottom: 42 };
const SUPER = { "-": "⁻", 0: "⁰", 1: "¹", 2: "²", 3: "³", 4: "⁴", 5: "⁵", 6: "⁶", 7: "⁷", 8: "⁸", 9: "⁹" };
const power = (n) => (n === 0 ? "1" : `10${[...String(n)].map((c) => SUPER[c]).join("")}`);

/** quantiles: [{fmr, similarity}], any order. marks: [{value, label}] vertical lines, e.g. thresholds. */
export function calibrationChart(quantiles, { marks = [], pairs = null, protocol = "" } = {}) {
  const points = [...quantiles].sort((a, b) => b.fmr - a.fmr);
  const shown = marks.filter((mark) => mark.value <= 1);
  const values = [...points.map((p) => p.similarity), ...shown.map((m) => m.value)];
  const low = Math.floor(Math.min(...values) * 10) / 10;
  const high = Math.max(Math.ceil(Math.max(...values) * 10) / 10, low + 0.1);
  const bottom = Math.floor(Math.log10(points.at(-1).fmr));
  const x = (v) => SIZE.left + ((v - low) / (high - low)) * (SIZE.width - SIZE.left - SIZE.right);
  const y = (fmr) => SIZE.top + (Math.log10(fmr) / bottom) * (SIZE.height - SIZE.top - SIZE.bottom);
  const step = high - low > 0.8 ? 0.2 : 0.1;
  const across = Array.from({ length: Math.round((high - low) / step) + 1 }, (_, n) => low + n * step);
  const down = Array.from({ length: -bottom + 1 }, (_, n) => -n);
  const say = `False match rate by similarity: from ${points[0].fmr} at ${similarity(points[0].similarity)} to ${points.at(-1).fmr} at ${similarity(points.at(-1).similarity)}.`;

  const chart = svg("svg", { class: "chart", viewBox: `0 0 ${SIZE.width} ${SIZE.height}`, role: "img", "aria-label": say },
    down.map((n) => [
      svg("line", { class: "grid", x1: SIZE.left, x2: SIZE.width - SIZE.right, y1: y(10 ** n), y2: y(10 ** n) }),
      svg("text", { x: SIZE.left - 8, y: y(10 ** n) + 4, "text-anchor": "end" }, power(n))]),
    across.map((v) => svg("text", { x: x(v), y: SIZE.height - SIZE.bottom + 18, "text-anchor": "middle" }, v.toFixed(1).replace("-", "−"))),
    svg("text", { x: (SIZE.left + SIZE.width - SIZE.right) / 2, y: SIZE.height - 6, "text-anchor": "middle" }, "similarity (cosine)"),
    svg("text", { x: SIZE.left - 50, y: 14 }, "false match rate (FMR)"),
    svg("polyline", { class: "curve", points: points.map((p) => `${x(p.similarity).toFixed(1)},${y(p.fmr).toFixed(1)}`).join(" ") }),
    points.length <= 60 ? points.map((p) => svg("circle", { class: "knot", cx: x(p.similarity), cy: y(p.fmr), r: 2.4 })) : null,
    shown.map((mark) => [
      svg("line", { class: "mark", x1: x(mark.value), x2: x(mark.value), y1: SIZE.top - 4, y2: SIZE.height - SIZE.bottom }),
      svg("text", { class: "mark-text", x: x(mark.value) - 6, y: SIZE.height - SIZE.bottom - 8, "text-anchor": "end" }, mark.label)]));
  return h("figure", { class: "stack tight" }, chart,
    pairs || protocol ? h("figcaption", { class: "small muted" },
      pairs ? `${new Intl.NumberFormat("en").format(pairs)} impostor comparisons${protocol ? ": " : ""}` : "", protocol) : null,
    h("details", {}, h("summary", {}, "As a table"), h("div", { class: "scroll-x cap", tabindex: 0, role: "region", "aria-label": "Calibration table" }, h("table", {},
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "False match rate"), h("th", { scope: "col" }, "Similarity"))),
      h("tbody", {}, points.map((p) => h("tr", {}, h("td", {}, p.fmr.toPrecision(3)), h("td", {}, similarity(p.similarity)))))))));
}

/** The threshold that an FPIR target needs over `faces` comparisons: {value, measured}. As the service computes it. */
export function preview(quantiles, target, faces) {
  const points = [...quantiles].sort((a, b) => b.fmr - a.fmr);
  const rate = -Math.expm1(Math.log1p(-target) / Math.max(faces, 1));
  if (rate >= points[0].fmr) return { rate, value: points[0].similarity, measured: true };
  for (let n = 1; n < points.length; n += 1) {
    const [above, below] = [points[n - 1], points[n]];
    if (rate >= below.fmr) {
      const part = (Math.log(above.fmr) - Math.log(rate)) / (Math.log(above.fmr) - Math.log(below.fmr));
      return { rate, value: above.similarity + part * (below.similarity - above.similarity), measured: true };
    }
  }
  return { rate, value: points.at(-1).similarity, measured: false };
}
