// Live: who stands before the camera. One frame is on its way at a time, so that the answer is never old: over the
// stream, which follows faces along tracks, or picture by picture where there is none.
import { at, call, formOf, pause } from "../api.js";
import { h, swap } from "../dom.js";
import { icon } from "../icons.js";
import { gallery } from "../state.js";
import { openStream } from "../stream.js";
import { called, milliseconds, similarity } from "../text.js";
import { closeCamera, openCamera, snapshot } from "../ui/camera.js";
import { field } from "../ui/dialog.js";
import { head } from "../ui/head.js";
import { badge } from "../ui/meter.js";
import { drawFaces, overlayFor } from "../ui/overlay.js";
import { galleryPicker } from "../ui/picker.js";
import { empty, problem } from "../ui/problem.js";

export const page = { id: "live", title: "Live", needs: ["POST /v1/galleries/{}/identify"], show };

const FIRST_WAIT_MS = 500; // before a broken connection is made again; doubled each time
const LONGEST_WAIT_MS = 10_000;
const REST_MS = 60; // between two pictures, so that one open page does not fill the service's queue

async function show(root, { signal }) {
  let running = null;
  let seen = new Map(); // identity id, or "unknown" → {name, kind, times, last, similarity}

  const video = h("video", { playsInline: true, muted: true, "aria-label": "What the camera sees" });
  const overlay = overlayFor();
  const place = h("div", { class: "stage" });
  const picker = galleryPicker({ signal, onchange: () => forget() });
  const width = h("select", { name: "width" }, [[640, "640 pixels: fast"], [960, "960 pixels"], [1280, "1280 pixels: small faces"]]
    .map(([value, text]) => h("option", { value }, text)));
  const start = h("button", { class: "button primary", type: "button", onclick: begin }, icon("play"), "Start the camera");
  const stop = h("button", { class: "button", type: "button", hidden: true, onclick: () => running?.abort() }, icon("stop"), "Stop");
  const facts = h("p", { class: "timings", id: "live-facts" });
  const people = h("div", { class: "card", "aria-live": "off" });
  const said = h("p", { class: "visually-hidden", role: "status" });

  const rest = () => swap(place, h("div", { class: "unshown" }, empty("live", "The camera is off",
    h("span", {}, "Its pictures go to this service only, and none of them is kept."))));

  function forget() {
    seen = new Map();
    drawPeople();
  }

  async function begin() {
    running = new AbortController();
    const until = AbortSignal.any([signal, running.signal]);
    let stream;
    start.hidden = true;
    stop.hidden = false;
    try {
      stream = await openCamera();
      if (until.aborted) return;
      video.srcObject = stream;
      swap(place, h("div", { class: "stage-inner" }, video, overlay));
      await video.play();
      while (!video.videoWidth) await pause(50, until); // some cameras play before they show anything
      forget();
      await follow(until);
    } catch (error) {
      if (error.name !== "AbortError") swap(place, problem(error));
    } finally {
      closeCamera(stream);
      video.srcObject = null;
      swap(overlay);
      start.hidden = false;
      stop.hidden = true;
      if (until.aborted) rest();
      facts.textContent = "";
    }
  }

  /** Look until it is stopped: on in another gallery when one was chosen, and again when the connection broke. */
  async function follow(until) {
    for (let wait = FIRST_WAIT_MS; !until.aborted; ) {
      try {
        await look(until, () => {
          wait = FIRST_WAIT_MS;
        });
      } catch (error) {
        if (error.code !== "closed" || until.aborted) throw error;
        swap(overlay);
        facts.textContent = `${error.message}: ${error.detail} Connecting again…`;
        await pause(wait, until);
        wait = Math.min(wait * 2, LONGEST_WAIT_MS);
      }
    }
  }

  async function look(until, onanswer) {
    const chosen = gallery();
    const stream = await openStream(chosen, until);
    const ask = stream
      ? (frame) => stream.ask(frame)
      : (frame) => call("POST", at.identify(chosen), { form: formOf("image", frame, { k: 1 }), signal: until, patience: 100 });
    let rate = null;
    try {
      while (!until.aborted && chosen === gallery()) {
        const begun = performance.now();
        const answer = await ask(await snapshot(video, "frame.jpg", Number(width.value), 0.85));
        if (until.aborted) return;
        onanswer();
        const took = performance.now() - begun;
        if (!answer.error) {
          drawFaces(overlay, answer.faces, answer.image, video.clientWidth);
          note(answer.faces);
        }
        await pause(document.hidden ? 1000 : stream ? 0 : REST_MS, until);
        const whole = performance.now() - begun;
        rate = rate === null ? whole : 0.8 * rate + 0.2 * whole;
        facts.textContent = `${(1000 / rate).toFixed(1)} frames a second · answer after ${milliseconds(took)} · ${stream ? "followed along tracks" : "picture by picture"}`;
      }
    } finally {
      stream?.close();
    }
  }

  function note(faces) {
    const now = Date.now();
    for (const face of faces) {
      const id = face.decision === "match" ? `id:${face.identity.id}` : face.decision;
      const name = face.decision === "match" ? called(face.identity) : face.decision[0].toUpperCase() + face.decision.slice(1);
      const before = seen.get(id);
      if (!before && face.decision === "match") said.textContent = `${name} is here`;
      seen.set(id, { name, kind: face.decision, times: (before?.times ?? 0) + 1, last: now, similarity: face.similarity ?? face.candidates?.[0]?.similarity ?? null });
    }
    drawPeople();
  }

  function drawPeople() {
    const rows = [...seen.values()].sort((a, b) => b.last - a.last || b.times - a.times).slice(0, 30);
    swap(people, h("h2", {}, "Seen"), rows.length
      ? h("table", {}, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Who"), h("th", { scope: "col", class: "right" }, "Frames"),
        h("th", { scope: "col", class: "right" }, "Similarity"), h("th", { scope: "col", class: "right" }, "Last"))),
      h("tbody", {}, rows.map((row) => h("tr", {}, h("td", { class: "break" }, row.kind === "match" ? h("strong", {}, row.name) : badge(row.kind)),
        h("td", { class: "right" }, row.times), h("td", { class: "right" }, similarity(row.similarity)),
        h("td", { class: "right nowrap" }, ago(row.last))))))
      : h("p", { class: "muted" }, "Nobody yet."));
  }

  swap(root, head("Live", "Who stands before the camera?", field("Frame width", width), picker.element),
    h("div", { class: "columns" },
      h("div", { class: "stack" }, place, h("div", { class: "row" }, start, stop, facts)), h("div", { class: "stack" }, people, said)));
  rest();
  forget();
  await picker.fill();
}

function ago(time) {
  const seconds = Math.round((Date.now() - time) / 1000);
  return seconds < 2 ? "now" : seconds < 60 ? `${seconds} s ago` : `${Math.round(seconds / 60)} min ago`;
}
