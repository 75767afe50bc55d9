// How a job stands.
import { h } from "../dom.js";
import { clock, count, sentence } from "../text.js";
import { badge } from "./meter.js";

const KINDS = { queued: "unknown", running: "busy", succeeded: "match", failed: "rejected", canceled: "unknown" };
export const jobBadge = (job) => badge(KINDS[job.state] === "unknown" ? "" : KINDS[job.state], job.state);

const STAGES = { analyze: "Looking for faces", render: "Drawing the video", import: "Importing", restore: "Importing", export: "Exporting", evaluation: "Comparing faces", embed: "Embedding faces" };
const NAMES = { video: "video", import: "import", export: "export", evaluation: "evaluation", reembed: "re-embedding", reembedding: "re-embedding" };

const words = (code) => code.replaceAll(/[_-]+/g, " ");

/** The kind of a job in words, also of one that the console does not know. */
export const kindOf = (job) => NAMES[job.kind] ?? words(job.kind);

/** Stage, bar, rate and time to the end of a running job; nothing for others. */
export function jobProgress(job) {
  const now = job.progress;
  if (job.state === "queued") return h("p", { class: "small muted" }, "Waits for its turn.");
  if (job.state !== "running") return null;
  if (!now) return h("p", { class: "small muted" }, "Starting…");
  const share = now.total ? now.done / now.total : null;
  const said = [
    STAGES[now.stage] ?? sentence(words(now.stage)),
    now.total ? `${count(now.done)} of ${count(now.total)}` : count(now.done),
    now.rate ? `${now.rate.toFixed(1)} a second` : null,
    now.eta_seconds === null ? null : `${clock(now.eta_seconds)} to go`,
  ].filter(Boolean);
  return h("div", { class: "stack tight" },
    h("progress", share === null ? { "aria-label": said[0] } : { "aria-label": said[0], max: 1, value: String(share) }),
    h("p", { class: "small muted num" }, said.join(" · ")));
}
