// One video: its job while it runs, then the player with the timeline underneath.
import { call } from "../../api.js";
import { h, swap } from "../../dom.js";
import { icon } from "../../icons.js";
import { FINAL, fetchResult, jobAt, resultAt, save, watch } from "../../jobs.js";
import { go, link } from "../../router.js";
import { key } from "../../session.js";
import { bytes, clock, plural } from "../../text.js";
import { backTo, head } from "../../ui/head.js";
import { jobBadge, jobProgress } from "../../ui/job.js";
import { notice, problem } from "../../ui/problem.js";
import { endJob } from "../jobs.js";
import { timeline } from "./timeline.js";

const DOWNLOADS = [["video", "Annotated video", "mp4"], ["tracks", "Tracks (JSON)", "json"], ["csv", "Tracks (CSV)", "csv"], ["vtt", "Captions (WebVTT)", "vtt"],
  ["timeline", "Timeline (PNG)", "png"], ["frames", "Frames (JSON lines)", "jsonl"]];

export async function showVideo(root, id, signal) {
  const state = h("div", { class: "row" });
  const progress = h("div", { role: "status" });
  const result = h("div", { class: "stack" });
  const back = backTo("All videos", "video");
  swap(root, head("Video"), back);
  const job = await call("GET", jobAt(id), { signal });
  const tools = h("div", { class: "row" });
  swap(root, head("Video", job.name, tools), back, h("div", { class: "card" }, state, progress), result);

  let ending = null;
  const draw = (now) => {
    swap(state, jobBadge(now), h("span", { class: "muted small" }, `gallery ${now.params.gallery} · ${now.params.mode === "tracks" ? "tracks" : "per frame"}${speed(now)}`));
    swap(progress, jobProgress(now) ?? (now.error ? problem({ ...now.error, title: "The analysis failed", message: "The analysis failed" }) : null));
    progress.hidden = !progress.childElementCount;
    const over = FINAL.has(now.state);
    if (over === ending) return; // a button that is being pressed must not be exchanged
    ending = over;
    swap(tools, h("button", {
      class: "button danger", type: "button",
      onclick: () => endJob(now, (receipt) => receipt.deleted && go("video")),
    }, icon(over ? "trash" : "stop"), over ? "Delete" : "Cancel"));
  };
  draw(job);
  const finish = (over) => over?.state === "succeeded" && showResult(result, over, signal).catch((error) => {
    if (error.name !== "AbortError") swap(result, problem(error));
  });
  if (FINAL.has(job.state)) {
    await finish(job);
    return;
  }
  watch(id, draw, signal).then((over) => (over ? finish(over) : go("video"))).catch((error) => {
    if (error.name !== "AbortError") swap(progress, problem(error));
  });
}

/** How fast the frames were looked at, drawing them left out. */
function speed(job) {
  const { frames, seconds } = job.result;
  if (!frames || !seconds) return "";
  return ` · ${(frames / (seconds.analyze + seconds.decide)).toFixed(1)} frames a second`;
}

async function showResult(root, job, signal) {
  const tracks = await call("GET", resultAt(job.id, "tracks"), { signal });
  const made = new Set(job.result.artifacts);
  const video = h("video", { controls: true, playsInline: true, preload: "metadata", "aria-label": `Annotated video ${job.name}` });
  const place = h("div", { class: "player" });
  const jump = (seconds) => {
    video.currentTime = seconds + 0.001;
    video.play().catch(() => {}); // refused or not loaded yet: the place is kept
  };
  const lanes = timeline(tracks, made.has("video") ? { jump, now: () => video.currentTime } : null);
  video.addEventListener("timeupdate", () => lanes.at(video.currentTime));
  swap(root,
    tracks.video.truncated ? notice("warn", "The file broke off before its end", h("span", {}, "What could be read was analyzed.")) : null,
    job.result.unknowns ? notice("info", `${plural(job.result.unknowns, "unknown face")} went into the inbox`,
      h("span", {}, "Name them under ", h("a", { href: link("unknowns") }, "Unknowns"), ", and analyze the video again.")) : null,
    made.has("video") ? place : null,
    h("section", { class: "card", "aria-label": "Timeline" }, h("div", { class: "row between" }, h("h2", {}, "Who is on screen"),
      h("span", { class: "small muted num" }, `${clock(tracks.video.duration)} · ${tracks.video.width} × ${tracks.video.height} · ${plural(tracks.video.frames, "frame")}`)), lanes.element),
    downloads(job, made));
  if (made.has("video")) await load(place, video, job, signal);
}

/** The player streams where no key is needed; with a key the file is fetched whole, for <video> cannot send one. */
async function load(place, video, job, signal) {
  if (!key()) {
    video.src = resultAt(job.id, "video");
    swap(place, video);
    return;
  }
  const bar = h("progress", { "aria-label": "Loading the video" });
  const words = h("span", { class: "small muted num" }, "Loading the video…");
  swap(place, h("div", { class: "card" }, bar, words));
  const blob = await fetchResult(job.id, "video", {
    signal,
    onprogress: (got, total) => {
      if (total) bar.value = got / total;
      words.textContent = `Loading the video: ${bytes(got)}${total ? ` of ${bytes(total)}` : ""}`;
    },
  });
  const address = URL.createObjectURL(blob);
  signal.addEventListener("abort", () => URL.revokeObjectURL(address));
  video.src = address;
  swap(place, video);
}

function downloads(job, made) {
  const stem = job.name.replace(/\.[^.]*$/, "") || "video";
  return h("section", { class: "card", "aria-label": "Downloads" }, h("h2", {}, "Downloads"), h("div", { class: "row" },
    DOWNLOADS.filter(([artifact]) => made.has(artifact)).map(([artifact, title, ending]) => {
      const button = h("button", {
        class: "button small", type: "button",
        onclick: async () => {
          button.disabled = true;
          try {
            save(await fetchResult(job.id, artifact), `${stem}.${artifact}.${ending}`);
          } catch (error) {
            button.after(problem(error));
          } finally {
            button.disabled = false;
          }
        },
      }, icon("download"), title);
      return button;
    })));
}
