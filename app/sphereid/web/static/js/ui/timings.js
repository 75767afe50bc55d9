import { h } from "../dom.js";
import { milliseconds } from "../text.js";

/** What an answer took, and which model and request it was. */
export function timings(answer) {
  return h("footer", { class: "timings" },
    Object.entries(answer.timings_ms).map(([stage, ms]) => h("span", {}, `${stage} ${milliseconds(ms)}`)),
    answer.gallery ? h("span", {}, `revision ${answer.gallery.revision}`) : null,
    h("span", {}, "request ", h("code", {}, answer.request_id)));
}
