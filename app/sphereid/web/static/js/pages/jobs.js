// Jobs: everything that takes a while, newest first.
import { ApiError, call, pause } from "../api.js";
import { h, swap } from "../dom.js";
import { icon } from "../icons.js";
import { FINAL, fetchResult, jobAt, save } from "../jobs.js";
import { link } from "../router.js";
import { count, date } from "../text.js";
import { ask } from "../ui/dialog.js";
import { head } from "../ui/head.js";
import { jobBadge, jobProgress, kindOf } from "../ui/job.js";
import { empty, loading, problem } from "../ui/problem.js";
import { toast } from "../ui/toast.js";

export const page = { id: "jobs", title: "Jobs", needs: ["GET /v1/jobs", "DELETE /v1/jobs/{}"], show };

async function show(root, { signal }) {
  const box = h("div", { class: "card" }, loading());
  swap(root, head("Jobs", "Work that takes a while. It goes on when this page is closed, and after a restart of the service."), box);
  const list = h("ul", { class: "files roomy", "aria-label": "Jobs, newest first" });
  const rows = new Map(); // job id → its row; kept from look to look, so that nothing is exchanged under a finger
  const look = async () => {
    const { items } = await call("GET", "/v1/jobs", { signal });
    for (const job of items) {
      if (!rows.has(job.id)) rows.set(job.id, row(look));
      rows.get(job.id).draw(job);
    }
    const wanted = items.map((job) => rows.get(job.id).element);
    if (wanted.length !== list.childElementCount || wanted.some((element, n) => list.children[n] !== element)) {
      const focused = document.activeElement;
      swap(list, wanted);
      if (list.contains(focused)) focused.focus();
    }
    if (!items.length) swap(box, empty("jobs", "No jobs yet", h("span", {}, "A video that is analyzed becomes one.")));
    else if (!box.contains(list)) swap(box, list);
    return items;
  };
  follow(look, box, signal);
}

async function follow(look, box, signal) {
  for (;;) {
    let rest = 10_000;
    try {
      if (!document.hidden) {
        const jobs = await look();
        rest = jobs.some((job) => !FINAL.has(job.state)) ? 1000 : 5000;
      }
    } catch (error) {
      if (error.name === "AbortError") return;
      swap(box, problem(error));
    }
    try {
      await pause(rest, signal);
    } catch {
      return;
    }
  }
}

function row(look) {
  let shown = null;
  let job = null;
  const state = h("span");
  const what = h("div", { class: "what" });
  const more = h("div", { class: "stack tight" });
  const end = h("button", { class: "button small", type: "button", onclick: () => endJob(job, look) });
  return {
    element: h("li", {}, state, what, end),
    draw(now) {
      const text = JSON.stringify(now);
      if (text === shown) return;
      const over = FINAL.has(now.state);
      if (job === null) {
        swap(what, now.kind === "video" ? h("a", { class: "break", href: link("video", now.id) }, now.name) : h("strong", { class: "break" }, now.name), more);
      }
      if (job === null || over !== FINAL.has(job.state)) {
        swap(end, icon(over ? "trash" : "stop"), over ? "Delete" : "Cancel");
        end.setAttribute("aria-label", `${over ? "Delete" : "Cancel"} ${now.name}`);
      }
      shown = text;
      job = now;
      swap(state, jobBadge(job));
      swap(more,
        h("span", { class: "small muted" }, kindOf(job), " · ", date(job.created_at), job.attempts > 1 ? ` · begun ${job.attempts} times` : ""),
        job.error ? h("span", { class: "small" }, job.error.detail) : null,
        jobProgress(job), job.kind !== "video" && job.state === "succeeded" ? outcome(job) : null);
    },
  };
}

const FILES = {
  report: ["Report (JSON)", "report.json"], report_csv: ["Report (CSV)", "report.csv"], gallery: ["Gallery (Parquet)", "parquet"],
  evaluation: ["Evaluation (JSON)", "evaluation.json"], chart: ["Chart (SVG)", "chart.svg"],
};

/** What a job that is no video came to: its counts, and its files to save. */
function outcome(job) {
  const counts = Object.entries(job.result).filter(([, value]) => typeof value === "number").slice(0, 6)
    .map(([name, value]) => `${name.replaceAll("_", " ")} ${Number.isInteger(value) ? count(value) : Number(value.toPrecision(4))}`);
  const wrong = h("div");
  return h("div", { class: "stack tight" }, counts.length ? h("span", { class: "small muted num" }, counts.join(" · ")) : null,
    h("div", { class: "row" }, (job.result.artifacts ?? []).map((artifact) => {
      const [title, ending] = FILES[artifact] ?? [artifact.replaceAll("_", " "), artifact];
      return h("button", { class: "button small", type: "button", "aria-label": `Save ${title} of ${job.name}`, onclick: async () => {
        try {
          save(await fetchResult(job.id, artifact), `${job.name.replace(/\.[^.]*$/, "") || "job"}.${ending}`);
        } catch (error) {
          swap(wrong, problem(error));
        }
      } }, icon("download"), title);
    })), wrong);
}

/** Cancel a job that runs, or delete one that is over, after asking. */
export async function endJob(job, after) {
  const over = FINAL.has(job.state);
  const receipt = await ask({
    title: over ? "Delete this job?" : "Cancel this job?",
    action: over ? "Delete" : "Cancel the job",
    danger: true,
    body: h("p", { class: "break" }, over ? `“${job.name}” and all its results are removed for good.` : `“${job.name}” stops, and what it made so far is removed.`),
    work: async () => {
      const now = await call("GET", jobAt(job.id));
      if (!over && FINAL.has(now.state)) {
        throw new ApiError({ title: "The job is over meanwhile", detail: `It has ${now.state}; its results are kept. Delete it if they are not wanted.` });
      }
      return call("DELETE", jobAt(job.id));
    },
  });
  if (!receipt) return;
  toast(receipt.deleted ? "The job and its results are deleted." : "The job is ending.");
  await after(receipt);
}
