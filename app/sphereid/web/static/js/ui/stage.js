// A picture with the faces that were found on it, drawn in SVG over the image.
import { h, swap } from "../dom.js";
import { drawFaces, overlayFor } from "./overlay.js";

/**
 * A stage for one picture file. `setFaces` draws; `highlight(i)` lights one up; `onpick(i)` tells of clicks.
 * `crop(i, size)` gives a canvas with a face, `cutout(i)` a JPEG file of it with room around.
 */
export function stage(file, { onpick, alt = "The picture" } = {}) {
  const source = URL.createObjectURL(file);
  const image = h("img", { alt, src: source });
  const overlay = overlayFor();
  const inner = h("div", { class: "stage-inner" }, image, overlay);
  const element = h("figure", { class: "stage" }, inner);
  let faces = [];
  let size = { width: 1, height: 1 };
  let landmarks = false;
  let readable = true;

  const loaded = image.decode().catch(() => {
    readable = false;
    swap(element, h("div", { class: "unshown" }, "This browser cannot show the file, but the service may be able to read it."));
  });

  const draw = () => drawFaces(overlay, faces, size, image.clientWidth, { landmarks, onpick });
  const watcher = new ResizeObserver(() => faces.length && draw());
  watcher.observe(image);

  return {
    element,
    loaded,
    setFaces(found, imageSize) {
      faces = found;
      size = imageSize ?? { width: image.naturalWidth, height: image.naturalHeight };
      draw();
    },
    setAlt(text) {
      image.alt = text;
    },
    showLandmarks(on) {
      landmarks = on;
      draw();
    },
    highlight(index) {
      [...overlay.children].forEach((group, at) => group.classList.toggle("lit", at === index));
    },
    crop(index, pixels = 128) {
      const canvas = h("canvas", { class: "face-crop", width: pixels, height: pixels, "aria-hidden": "true" });
      if (readable) paint(canvas, image, square(faces[index].box, 0.25), size);
      return canvas;
    },
    async cutout(index) {
      const area = square(faces[index].box, 0.9);
      const side = Math.round(Math.min(Math.max(area.side, 64), 1024));
      const canvas = h("canvas", { width: side, height: side });
      paint(canvas, image, area, size);
      const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.95));
      return new File([blob], `face-${index + 1}-of-${file.name || "picture"}`.replace(/(\.[a-z0-9]+)?$/i, ".jpg"), { type: "image/jpeg" });
    },
    get readable() {
      return readable;
    },
    dispose() {
      watcher.disconnect();
      URL.revokeObjectURL(source);
    },
  };
}

/** A square around a box, wider by `room` of its longer side. */
function square(box, room) {
  const side = Math.max(box.width, box.height) * (1 + room);
  return { x: box.x + box.width / 2 - side / 2, y: box.y + box.height / 2 - side / 2, side };
}

function paint(canvas, image, area, size) {
  const scale = image.naturalWidth / size.width; // the service may count other pixels than the browser
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(image, area.x * scale, area.y * scale, area.side * scale, area.side * scale, 0, 0, canvas.width, canvas.height);
}
