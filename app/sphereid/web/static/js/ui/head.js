import { h } from "../dom.js";
import { icon } from "../icons.js";
import { link } from "../router.js";

/** The head of a page: its title, a sentence, and its tools. */
export function head(title, about, ...tools) {
  return h("div", { class: "page-head" },
    h("div", {}, h("h1", { tabindex: -1 }, title), about ? h("p", { class: "muted break" }, about) : null),
    tools.length ? h("div", { class: "tools" }, ...tools) : null);
}

/** The way back to the list that a page belongs to. */
export function backTo(title, ...place) {
  return h("div", {}, h("a", { class: "button quiet back", href: link(...place) }, icon("back"), title));
}
