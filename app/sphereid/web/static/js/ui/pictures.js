// Pictures of faces that the service keeps; they need the key, which an <img> cannot send.
import { call } from "../api.js";
import { h } from "../dom.js";

/** Each picture is fetched once, when it comes into sight, and freed with the page. */
export class Pictures {
  constructor(signal) {
    this.signal = signal;
    this.known = new Map();
    this.waiting = new WeakMap();
    this.sight = new IntersectionObserver((entries) => {
      for (const { target } of entries.filter((entry) => entry.isIntersecting)) this.load(target);
    }, { rootMargin: "200px" });
    signal.addEventListener("abort", () => {
      this.sight.disconnect();
      for (const found of this.known.values()) found.then(URL.revokeObjectURL, () => {});
    });
  }

  /** An <img> of what is at `path`. missing: gets the image when there is nothing. */
  of(path, alt, missing = () => {}) {
    const image = h("img", { alt: "", width: 96, height: 96 }); // with a text it would look broken until it is there
    this.waiting.set(image, { path, alt, missing });
    this.sight.observe(image);
    return image;
  }

  load(image) {
    const { path, alt, missing } = this.waiting.get(image);
    this.waiting.delete(image);
    this.sight.unobserve(image);
    if (!this.known.has(path)) {
      this.known.set(path, call("GET", path, { as: "blob", signal: this.signal, headers: { Accept: "image/jpeg" }, patience: 3 })
        .then((blob) => URL.createObjectURL(blob)));
    }
    this.known.get(path).then((source) => {
      image.src = source;
      image.alt = alt;
    }, () => missing(image));
  }
}
