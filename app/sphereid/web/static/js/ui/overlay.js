// Boxes, names and landmarks over a picture or a video, in SVG.
import { svg, swap } from "../dom.js";
import { called, shorten } from "../text.js";

const FONT = 13; // of the labels, in pixels of the screen
const ruler = document.createElement("canvas").getContext("2d");
const COLOR = /^#[0-9a-f]{6}$/i;

/** An empty overlay; it lies over whatever its parent shows. */
export const overlayFor = () => svg("svg", { class: "overlay", "aria-hidden": "true", preserveAspectRatio: "none" });

/**
 * Draw `faces` (boxes in pixels of an image of `size`) on an overlay that is `width` pixels wide on the screen.
 * landmarks: draw them too. onpick(index, hover): told of clicks and of the pointer coming and going.
 */
export function drawFaces(overlay, faces, size, width, { landmarks = false, onpick } = {}) {
  const scale = width ? size.width / width : 1;
  overlay.setAttribute("viewBox", `0 0 ${size.width} ${size.height}`);
  swap(overlay, faces.map((face, index) => drawFace(face, index, scale, size, { landmarks, onpick })));
}

/** What stands on a face's box. */
export function labelOf(face, index) {
  if (face.decision === "match") return `${index + 1} ${shorten(called(face.identity), 24)}`;
  if (face.decision === "ambiguous") return `${index + 1} ambiguous`;
  return `${index + 1}`;
}

function drawFace(face, index, scale, size, { landmarks, onpick }) {
  const { x, y, width, height } = face.box;
  const color = face.identity?.metadata?.color;
  const text = labelOf(face, index);
  ruler.font = `600 ${FONT}px ${getComputedStyle(document.body).fontFamily}`;
  const plate = { width: (ruler.measureText(text).width + 12) * scale, height: 20 * scale };
  const plateX = Math.max(0, Math.min(x, size.width - plate.width));
  const plateY = y >= plate.height ? y - plate.height : Math.min(y + height, size.height - plate.height);
  const group = svg("g", { class: "face-box", data: { decision: face.decision ?? "face" } },
    svg("rect", { class: "halo", x, y, width, height }),
    svg("rect", { class: "edge", x, y, width, height }),
    landmarks ? (face.landmarks ?? []).map(([cx, cy]) => svg("circle", { cx, cy, r: 2.5 * scale })) : null,
    svg("rect", { class: "plate", x: plateX, y: plateY, ...plate, rx: 3 * scale }),
    svg("text", { x: plateX + 6 * scale, y: plateY + 14.5 * scale, "font-size": FONT * scale }, text));
  if (typeof color === "string" && COLOR.test(color) && face.decision === "match") group.style.setProperty("--c", color);
  if (onpick) {
    group.addEventListener("click", () => onpick(index));
    group.addEventListener("pointerenter", () => onpick(index, true));
    group.addEventListener("pointerleave", () => onpick(null, true));
  }
  return group;
}
