// Jobs: everything that takes a while, newest first.
import { call, pause } from "../api.js";
import { h, swap } from "../dom.js";
import { icon } from "../icons.js";
import { FINAL, jobAt } from "../jobs.js";
import { link } from "../router.js";
import { date } from "../text.js";
import { ask } from "../ui/dialog.js";
import { head } from "../ui/head.js";
import { jobBadge, jobProgress } from "../ui/job.js";
import { empty, loading, problem } from "../ui/problem.js";
import { toast } from "../ui/toast.js";

export const page = { id: "jobs", title: "Jobs", needs: ["GET /v1/jobs", "DELETE /v1/jobs/{}"], show };

async function show(root, { signal }) {
  const box = h("div", { class: "card" }, loading());
  swap(root, head("Jobs", "Work that takes a while. It goes on when this page is closed, and after a restart of the service."), box);
  const look = async () => {
    const { items } = await call("GET", "/v1/jobs", { signal });
    draw(box, items, look);
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

function draw(box, jobs, look) {
  const focused = document.activeElement?.dataset?.job;
  swap(box, jobs.length ? h("ul", { class: "files", "aria-label": "Jobs, newest first" }, jobs.map((job) => row(job, look)))
    : empty("jobs", "No jobs yet", h("span", {}, "A video that is analyzed becomes one.")));
  if (focused) box.querySelector(`button[data-job="${CSS.escape(focused)}"]`)?.focus();
}

function row(job, look) {
  const over = FINAL.has(job.state);
  const name = job.kind === "video" ? h("a", { class: "break", href: link("video", job.id) }, job.name) : h("strong", {}, job.name);
  return h("li", {}, jobBadge(job),
    h("div", { class: "what" }, name,
      h("span", { class: "small muted" }, job.kind, " · ", date(job.created_at), job.attempts > 1 ? ` · begun ${job.attempts} times` : ""),
      job.error ? h("span", { class: "small" }, job.error.detail) : null,
      jobProgress(job)),
    h("button", {
      class: "button small", type: "button", data: { job: job.id }, "aria-label": `${over ? "Delete" : "Cancel"} ${job.name}`,
      onclick: () => endJob(job, look),
    }, icon(over ? "trash" : "stop"), over ? "Delete" : "Cancel"));
}

/** Cancel a job that runs, or delete one that is over, after asking. */
export async function endJob(job, after) {
  const over = FINAL.has(job.state);
  const receipt = await ask({
    title: over ? "Delete this job?" : "Cancel this job?",
    action: over ? "Delete" : "Cancel the job",
    danger: true,
    body: h("p", { class: "break" }, over ? `“${job.name}” and all its results are removed for good.` : `“${job.name}” stops, and what it made so far is removed.`),
    work: () => call("DELETE", jobAt(job.id)),
  });
  if (!receipt) return;
  toast(receipt.deleted ? "The job and its results are deleted." : "The job is ending.");
  await after(receipt);
}
