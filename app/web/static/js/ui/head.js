import { h } from "../dom.js";

/** The head of a page: its title, a sentence, and its tools. */
export function head(title, about, ...tools) {
  return h("div", { class: "page-head" },
    h("div", {}, h("h1", { tabindex: -1 }, title), about ? h("p", { class: "muted" }, about) : null),
    tools.length ? h("div", { class: "tools" }, ...tools) : null);
}
