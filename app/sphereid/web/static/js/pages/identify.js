// Identify: who is on a picture?
import { at, call, formOf } from "../api.js";
import { h, swap } from "../dom.js";
import { enroll, resolve } from "../enrolling.js";
import { gallery } from "../state.js";
import { called, plural } from "../text.js";
import { icon } from "../icons.js";
import { ask, check, field } from "../ui/dialog.js";
import { cameraButton, chooser, droppable, pasteable } from "../ui/drop.js";
import { faceCard } from "../ui/facecard.js";
import { head } from "../ui/head.js";
import { galleryPicker } from "../ui/picker.js";
import { empty, loading, notice, problem } from "../ui/problem.js";
import { stage } from "../ui/stage.js";
import { timings } from "../ui/timings.js";
import { toast } from "../ui/toast.js";

export const page = { id: "identify", title: "Identify", needs: ["POST /v1/galleries/{}/identify"], show };

async function show(root, { signal }) {
  let file = null;
  let shown = null;
  let running = null;
  let searched = null; // the gallery that was asked last

  const picker = galleryPicker({ signal, onchange: () => file && gallery() !== searched && run() });
  const options = optionsForm(() => file && run());
  const left = h("div", { class: "stack stays" });
  const right = h("section", { class: "stack", "aria-label": "Faces" });
  const summary = h("p", { class: "summary", role: "status" });

  const take = ([first]) => {
    file = first;
    run();
  };
  const again = () => h("div", { class: "row" },
    chooser({ label: "Choose a picture", onfiles: take }), cameraButton((shot) => take([shot])),
    h("span", { class: "small muted" }, "or drop or paste the next one"));

  const start = () => {
    swap(left, droppable(h("div", { class: "drop tall", id: "drop" }, icon("identify"),
      h("strong", {}, "Drop a picture here"),
      h("span", { class: "muted" }, "or paste it from the clipboard"),
      h("div", { class: "row" }, chooser({ label: "Choose a picture", primary: true, onfiles: take }), cameraButton((shot) => take([shot]))),
      h("span", { class: "small muted" }, "The service answers and forgets the picture; it stores only what is enrolled.")), take));
    swap(right, h("div", { class: "card" }, empty("info", "Every face of the picture is listed here",
      h("span", {}, "with its name or “unknown”, and why it was decided so."))));
  };

  async function run() {
    running?.abort();
    running = new AbortController();
    searched = gallery();
    const stop = AbortSignal.any([signal, running.signal]);
    shown?.dispose();
    shown = stage(file, { onpick: (index, hover) => light(index, hover) });
    const wrap = droppable(h("div", { class: "stage-wrap" }, shown.element), take);
    swap(left, wrap, again(), options.element);
    swap(right, loading("Looking for faces…"));
    summary.textContent = "";
    try {
      const answer = await call("POST", at.identify(searched), { form: formOf("image", file, options.values()), signal: stop, patience: 3 });
      await shown.loaded;
      draw(answer);
    } catch (error) {
      if (error.name !== "AbortError") swap(right, problem(error, { retry: run }));
    }
  }

  function light(index, hover) {
    shown.highlight(index);
    [...right.querySelectorAll(".face-card")].forEach((card, at) => card.classList.toggle("lit", at === index));
    if (index !== null && !hover) right.querySelectorAll(".face-card")[index]?.focus();
  }

  function draw(answer) {
    shown.setFaces(answer.faces, answer.image);
    const names = answer.faces.filter((face) => face.decision === "match").map((face) => called(face.identity));
    const kinds = ["match", "unknown", "ambiguous", "rejected"]
      .map((kind) => [kind, answer.faces.filter((face) => face.decision === kind).length]).filter(([, n]) => n);
    shown.setAlt(answer.faces.length ? `The picture with ${plural(answer.faces.length, "face")}${names.length ? `, among them ${names.join(", ")}` : ""}` : "The picture; no face was found");
    summary.textContent = answer.faces.length
      ? `${plural(answer.faces.length, "face")}: ${kinds.map(([kind, n]) => `${n} ${kind}`).join(", ")}`
      : "No face was found";
    const landmarks = check("Show landmarks", { id: "landmarks", onchange: (event) => shown.showLandmarks(event.target.checked) });
    swap(right,
      h("div", { class: "row between" }, summary, answer.faces.length ? landmarks : null),
      answer.faces.length
        ? h("ol", { class: "face-list" }, answer.faces.map((face, index) => faceCard(face, index, {
          crop: shown.readable ? shown.crop(index) : null,
          onlight: (on) => shown.highlight(on ? index : null),
          onenroll: shown.readable ? () => nameFace(face, index) : null,
        })))
        : notice("info", "No face was found on this picture",
          h("span", {}, "A face should be visible, upright, and at least some 20 pixels wide.")),
      timings(answer));
  }

  async function nameFace(face, index) {
    const suggested = face.decision === "match" ? called(face.identity) : "";
    const done = await ask({
      title: `Enroll face ${index + 1}`,
      action: "Enroll",
      body: h("div", { class: "stack" },
        h("div", { class: "row" }, shown.crop(index), h("p", { class: "grow muted" },
          `The face goes into the gallery “${gallery()}”. An identity of this name gets one more face; otherwise it is made.`)),
        field("Name", h("input", { name: "name", required: true, maxlength: 200, value: suggested, autocomplete: "off" }))),
      work: async (values) => {
        const who = await resolve(gallery(), String(values.get("name")));
        await enroll(gallery(), who.id, await shown.cutout(index), { name: who.exists ? undefined : who.name, face: "largest", quality: "off" });
        return who;
      },
    });
    if (!done) return;
    toast(`Enrolled one face of ${done.name}.`);
    await picker.fill();
    if (!signal.aborted) run();
  }

  swap(root, head("Identify", "Who is on a picture? Every face is compared with the gallery.", picker.element),
    h("div", { class: "columns" }, left, right));
  start();
  pasteable(take, signal);
  signal.addEventListener("abort", () => shown?.dispose());
  await picker.fill();
}

function optionsForm(onchange) {
  const k = h("input", { type: "number", min: 1, max: 100, value: "5", name: "k" });
  const threshold = h("input", { type: "number", min: -1, max: 1, step: "0.01", placeholder: "the gallery's", name: "threshold" });
  const quality = h("select", { name: "quality" },
    h("option", { value: "off" }, "off: search every face"), h("option", { value: "normal" }, "normal: refuse tiny faces"),
    h("option", { value: "strict" }, "strict: refuse any fault"));
  const unique = check("Give each identity to one face at most", { name: "assign" });
  const form = h("form", { class: "halves" },
    field("Candidates listed", k), field("Threshold", threshold, "Empty: what the gallery's policy gives."),
    field("Quality gate", quality), h("div", { class: "field" }, h("span", { class: "label" }, "Assignment"), unique));
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("change", () => form.reportValidity() && onchange());
  return {
    element: h("details", {}, h("summary", {}, "Options"), h("div", { class: "card" }, form)),
    values: () => ({
      k: k.value, threshold: threshold.value, quality: quality.value,
      assign: unique.querySelector("input").checked ? "unique" : "independent",
    }),
  };
}
