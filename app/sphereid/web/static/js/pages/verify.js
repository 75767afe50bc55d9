// Verify: do two pictures show the same person? Or: does a picture show a certain identity?
import { at, call, formOf, url } from "../api.js";
import { h, swap } from "../dom.js";
import { icon } from "../icons.js";
import { gallery } from "../state.js";
import { called, plural, why } from "../text.js";
import { check, field, radio } from "../ui/dialog.js";
import { cameraButton, chooser, droppable, pasteable } from "../ui/drop.js";
import { head } from "../ui/head.js";
import { badge, meter } from "../ui/meter.js";
import { galleryPicker } from "../ui/picker.js";
import { empty, loading, problem } from "../ui/problem.js";
import { stage } from "../ui/stage.js";
import { timings } from "../ui/timings.js";

export const page = { id: "verify", title: "Verify", needs: ["POST /v1/verify"], show };

async function show(root, { signal }) {
  let against = "picture";
  let running = null;
  const result = h("section", { class: "card verdict", "aria-label": "Result", "aria-live": "polite" });
  const largest = check("If a picture shows several faces, compare the largest", { id: "largest", onchange: () => run() });
  const one = slot("First picture", () => run());
  const two = slot("Second picture", () => run());
  const person = identityChooser(signal, () => run());
  const second = h("div");

  const waiting = () => swap(result, empty("verify", "Two faces, one answer", h("span", {}, against === "picture"
    ? "Give two pictures; the answer comes by itself." : "Give a picture and choose an identity; the answer comes by itself.")));

  async function run() {
    running?.abort();
    running = new AbortController();
    const stop = AbortSignal.any([signal, running.signal]);
    one.clear();
    two.clear();
    const other = against === "picture" ? two.file() : person.id();
    if (!one.file() || !other) {
      waiting();
      return;
    }
    const fields = { face: largest.querySelector("input").checked ? "largest" : "only" };
    swap(result, loading("Comparing…"));
    try {
      const answer = against === "picture"
        ? await call("POST", "/v1/verify", { form: formOf("images", [one.file(), other], fields), signal: stop, patience: 3 })
        : await call("POST", at.verifyIdentity(gallery(), other), { form: formOf("image", one.file(), fields), signal: stop, patience: 3 });
      const faces = answer.faces ?? [answer.face];
      await Promise.all([one.draw(faces[0]), faces[1] && two.draw(faces[1])]);
      verdict(answer);
    } catch (error) {
      if (error.name !== "AbortError") swap(result, problem(error, { retry: run }));
    }
  }

  function verdict(answer) {
    const same = answer.decision === "match";
    const whom = answer.identity ? called(answer.identity) : person.name();
    const words = against === "picture"
      ? (same ? "The same person" : "Not shown to be the same person")
      : (same ? `This is ${whom}` : `Not shown to be ${whom}`);
    swap(result,
      h("div", { class: "verdict-line break" }, words, badge(answer.decision)),
      meter({ value: answer.similarity, threshold: answer.threshold, kind: answer.decision, rate: against === "picture" ? "FMR" : "FPIR" }),
      h("p", { class: "why" }, answer.reason === "below_threshold" ? why({ ...answer, candidates: [] }) : why(answer)),
      timings(answer));
  }

  const choose = h("fieldset", {}, h("legend", { class: "visually-hidden" }, "Compare with"), h("div", { class: "row" },
    radio("Two pictures", { name: "against", value: "picture", checked: true, onchange: () => turn("picture") }),
    radio("A picture and an identity", { name: "against", value: "identity", onchange: () => turn("identity") })));

  function turn(to) {
    against = to;
    swap(second, to === "picture" ? two.element : person.element);
    if (to === "identity") person.fill();
    run();
  }

  swap(root, head("Verify", "Do two pictures show the same person?"),
    choose, h("div", { class: "versus" }, one.element, second), largest, result);
  turn("picture");
  pasteable(([file]) => (one.file() && against === "picture" ? two : one).take(file), signal);
  signal.addEventListener("abort", () => [one, two].forEach((each) => each.dispose()));
}

/** One of the two places for a picture. */
function slot(title, onchange) {
  let file = null;
  let shown = null;
  const body = h("div", { class: "stack" });
  const element = h("section", { class: "stack tight", "aria-label": title }, h("h2", {}, title), body);

  const take = (picture) => {
    shown?.dispose();
    file = picture;
    shown = stage(file, { alt: title });
    swap(body, droppable(h("div", { class: "stage-wrap" }, shown.element), ([next]) => take(next)), buttons(true));
    onchange();
  };
  const buttons = (small) => h("div", { class: "row" },
    chooser({ label: "Choose", small, onfiles: ([next]) => take(next) }), cameraButton(take, { small }));
  swap(body, droppable(h("div", { class: "drop" }, icon("upload"), h("span", { class: "muted" }, "Drop or paste a picture"), buttons(false)), ([next]) => take(next)));

  return {
    element, take,
    file: () => file,
    clear: () => shown?.setFaces([]),
    async draw(face) {
      await shown.loaded;
      if (shown.readable) shown.setFaces([face]);
    },
    dispose: () => shown?.dispose(),
  };
}

/** Choose an identity of a gallery by a search. */
function identityChooser(signal, onchange) {
  let found = [];
  const select = h("select", { size: 8, name: "identity", onchange });
  const search = h("input", { type: "search", name: "search", placeholder: "Part of a name", autocomplete: "off" });
  const note = h("p", { class: "small muted", role: "status" });
  const look = async () => {
    const [where, name] = [gallery(), search.value.trim()];
    const answer = await call("GET", url(at.identities(where), { name, limit: 50 }), { signal });
    if (where !== gallery() || name !== search.value.trim()) return; // an older search that came late
    const before = select.value;
    found = answer.items;
    swap(select, found.map((each) => h("option", { value: each.id }, `${called(each)} (${plural(each.faces, "face")})`)));
    note.textContent = answer.next_cursor ? "Only the first 50 are listed; type more of the name." : plural(found.length, "identity", "identities");
    select.value = before; // a choice outlives a search that still lists it
    if (select.value !== before || !before) onchange();
  };
  let timer = 0;
  search.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(() => look().catch(() => {}), 250);
  });
  const picker = galleryPicker({ signal, onchange: () => look().catch(() => {}) });
  return {
    element: h("section", { class: "stack tight", "aria-label": "Identity" }, h("h2", {}, "Identity"),
      h("div", { class: "card" }, picker.element, field("Search", search), field("Who it should be", select), note)),
    fill: () => picker.fill(),
    id: () => select.value,
    name: () => called(found.find((each) => each.id === select.value)),
  };
}
