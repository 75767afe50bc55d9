// Video: who is on screen when. The list and the upload; one video's page is in video/.
import { call, formOf, idempotencyKey, upload } from "../api.js";
import { h, swap } from "../dom.js";
import { icon } from "../icons.js";
import { go, link } from "../router.js";
import { gallery } from "../state.js";
import { bytes, date, plural } from "../text.js";
import { check, field } from "../ui/dialog.js";
import { chooser, droppable } from "../ui/drop.js";
import { head } from "../ui/head.js";
import { jobBadge } from "../ui/job.js";
import { galleryPicker } from "../ui/picker.js";
import { empty, notice, problem } from "../ui/problem.js";
import { showVideo } from "./video/result.js";

export const page = { id: "video", title: "Video", needs: ["POST /v1/videos", "GET /v1/jobs/{}/events", "GET /v1/jobs/{}/result"], show };

async function show(root, { rest, signal }) {
  if (rest[0]) {
    await showVideo(root, rest[0], signal);
    return;
  }
  let sending = null;
  const hint = h("div");
  const picker = galleryPicker({ signal, onchange: (found) => swap(hint, found?.faces === 0 ? nobody(found) : null) });
  const mode = h("select", { name: "mode" },
    h("option", { value: "tracks" }, "tracks: steadier and faster"),
    h("option", { value: "per_frame" }, "per frame: every face by itself"));
  const every = h("input", { type: "number", name: "every_n", min: 1, max: 250, placeholder: "automatic" });
  const annotate = check("Make a video with boxes and names", { name: "annotate", checked: true });
  const status = h("div", { class: "stack tight", role: "status" });
  const list = h("div", { class: "card" });

  async function send([file]) {
    if (sending) return;
    if (!every.reportValidity()) return;
    sending = new AbortController();
    const bar = h("progress", { "aria-label": "Upload", value: 0, max: 1 });
    const words = h("span", { class: "small muted num" }, "Starting…");
    swap(status, h("div", { class: "card" }, h("strong", { class: "break" }, `Uploading ${file.name}`), bar, h("div", { class: "row between" }, words,
      h("button", { class: "button small", type: "button", onclick: () => sending?.abort() }, icon("stop"), "Stop"))));
    try {
      const form = formOf("video", file, {
        gallery: gallery(), mode: mode.value, every_n: every.value, annotate: annotate.querySelector("input").checked,
      });
      const job = await upload("/v1/videos", form, {
        headers: { "Idempotency-Key": idempotencyKey() },
        signal: AbortSignal.any([signal, sending.signal]),
        onprogress: (sent, total) => {
          bar.value = total ? sent / total : 0;
          words.textContent = sent < total ? `${bytes(sent)} of ${bytes(total)}` : "Received; the file is checked…";
        },
      });
      go("video", job.id);
    } catch (error) {
      swap(status, error.name === "AbortError" ? null : problem(error));
    } finally {
      sending = null;
    }
  }

  swap(root, head("Video", "Who is on screen, and when?", picker.element), hint,
    h("div", { class: "columns" },
      h("div", { class: "stack" },
        droppable(h("div", { class: "drop tall", id: "drop" }, icon("video"), h("strong", {}, "Drop a video here"),
          h("div", { class: "row" }, chooser({ label: "Choose a video", primary: true, accept: "video/*,.mkv,.mp4,.mov,.webm,.avi", onfiles: send })),
          h("span", { class: "small muted" }, "The upload is deleted when the analysis is over; its results stay until the job is deleted.")), send),
        status),
      h("section", { class: "card", "aria-label": "Options" }, h("h2", {}, "Options"), field("Mode", mode, "Tracks pool the evidence along a face's way through the picture and decide once."),
        field("Search faces in every n-th frame", every, "Empty: about ten times a second in tracks, every frame otherwise."), annotate)),
    h("section", { class: "stack", "aria-label": "Analyzed videos" }, h("h2", {}, "Analyzed videos"), list));
  await picker.fill();
  const { items } = await call("GET", "/v1/jobs", { signal });
  const videos = items.filter((job) => job.kind === "video");
  swap(list, videos.length
    ? h("ul", { class: "files" }, videos.map((job) => h("li", {}, jobBadge(job),
      h("div", { class: "what" }, h("a", { href: link("video", job.id) }, job.name), h("span", { class: "small muted" }, date(job.created_at))),
      h("span", { class: "small muted" }, job.state === "succeeded" ? plural(job.result.people?.length ?? 0, "person", "people") : ""))))
    : empty("video", "No video yet"));
}

function nobody(found) {
  return notice("info", "Nobody is enrolled in this gallery: everybody on screen will be unknown", h("span", {},
    h("a", { href: link("gallery", found.id, "enroll") }, "Enroll people"), " first, or let the gallery keep ",
    h("a", { href: link("unknowns") }, "unknown faces"), ", and name those of the video afterwards."));
}
