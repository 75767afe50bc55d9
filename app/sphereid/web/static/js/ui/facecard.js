// One face of an answer: who, how similar, why, and who else was near.
import { h } from "../dom.js";
import { icon } from "../icons.js";
import { link } from "../router.js";
import { gallery } from "../state.js";
import { called, decimal, quality, similarity, why } from "../text.js";
import { badge, bar, meter } from "./meter.js";

/** crop: a canvas or null. onlight(on): the card has the pointer or the focus. onenroll: names the face. */
export function faceCard(face, index, { crop, onlight, onenroll }) {
  const title = face.decision === "match" ? called(face.identity) : { unknown: "Unknown", ambiguous: "Ambiguous", rejected: "Rejected" }[face.decision];
  const card = h("li", { class: "face-card", tabindex: -1, data: { decision: face.decision } },
    h("div", { class: "face-top" },
      crop ?? h("span"),
      h("div", {},
        h("div", { class: "face-name" }, title),
        h("div", { class: "small muted" }, `Face ${index + 1}`,
          face.decision === "match" ? [" · ", h("a", { href: link("gallery", gallery(), "people", face.identity.id) }, h("code", {}, face.identity.id))] : null)),
      badge(face.decision)),
    face.similarity === null && !face.candidates.length ? null
      : meter({ value: face.similarity ?? face.candidates[0]?.similarity ?? null, threshold: face.threshold, kind: face.decision, label: `Similarity of face ${index + 1}` }),
    h("p", { class: "why" }, why(face)),
    h("details", {}, h("summary", {}, "Candidates and quality"),
      candidates(face),
      h("dl", { class: "facts", "aria-label": "Quality" },
        h("dt", {}, "Quality"), h("dd", {}, decimal(face.quality.score), face.quality.reasons.length ? ` (${face.quality.reasons.map(quality).join(", ")})` : ""),
        h("dt", {}, "Detection score"), h("dd", {}, decimal(face.detection_score)),
        h("dt", {}, "To threshold"), h("dd", {}, similarity(face.margins.to_threshold)),
        h("dt", {}, "To runner-up"), h("dd", {}, similarity(face.margins.to_runner_up)),
        h("dt", {}, "Box"), h("dd", {}, `${Math.round(face.box.width)} × ${Math.round(face.box.height)} px`)),
      onenroll ? h("div", { class: "row" }, h("button", { class: "button small", type: "button", onclick: onenroll }, icon("plus"), "Enroll this face")) : null));
  if (onlight) {
    for (const [name, on] of [["pointerenter", true], ["focusin", true], ["pointerleave", false], ["focusout", false]]) {
      card.addEventListener(name, () => onlight(on));
    }
  }
  return card;
}

function candidates(face) {
  if (!face.candidates.length) return h("p", { class: "small muted" }, "No candidates: nothing to compare with.");
  return h("ol", { class: "candidates", "aria-label": "Candidates, nearest first" }, face.candidates.map((each) =>
    h("li", {},
      h("a", { class: "break", href: link("gallery", gallery(), "people", each.identity.id) }, called(each.identity)),
      bar(each.similarity, face.threshold, each.similarity >= face.threshold.value ? "match" : "unknown"),
      h("span", { class: "num right" }, similarity(each.similarity)))));
}
