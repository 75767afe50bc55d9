// Reads Prometheus' text format.

/** [{name, labels, value}] */
export function parse(text) {
  const samples = [];
  for (const line of text.split("\n")) {
    const found = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)/.exec(line);
    if (!found || line.startsWith("#")) continue;
    const labels = {};
    for (const [, name, value] of (found[2] ?? "").matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)) {
      labels[name] = value.replace(/\\(.)/g, (_, c) => (c === "n" ? "\n" : c));
    }
    samples.push({ name: found[1], labels, value: Number(found[3].replace("Inf", "Infinity")) });
  }
  return samples;
}

/** The sum of a counter or gauge over the samples whose labels fit. */
export function total(samples, name, fits = () => true) {
  return samples.filter((s) => s.name === name && fits(s.labels)).reduce((sum, s) => sum + s.value, 0);
}

/** The q-quantile of a histogram, linear inside a bucket as Prometheus does it; null without observations. */
export function quantile(samples, name, q, fits = () => true) {
  const buckets = new Map();
  for (const s of samples) {
    if (s.name !== `${name}_bucket` || !fits(s.labels)) continue;
    const le = s.labels.le === "+Inf" ? Infinity : Number(s.labels.le);
    buckets.set(le, (buckets.get(le) ?? 0) + s.value);
  }
  const edges = [...buckets].sort((a, b) => a[0] - b[0]);
  const all = edges.at(-1)?.[1] ?? 0;
  if (!all) return null;
  let [before, below] = [0, 0];
  for (const [edge, n] of edges) {
    if (n >= q * all) return edge === Infinity ? before : before + (edge - before) * ((q * all - below) / Math.max(n - below, 1e-9));
    [before, below] = [edge, n];
  }
  return before;
}
