// Errors as the service words them: title, detail, and the request id to give to whoever reads the log.
import { h } from "../dom.js";
import { icon } from "../icons.js";

export function problem(error, { retry } = {}) {
  const known = error.title !== undefined || error.code !== undefined;
  return h("div", { class: "notice problem", role: "alert" }, icon("warn"), h("div", {},
    h("strong", {}, known ? error.message : "The console made a mistake"),
    h("span", { class: "break" }, known ? error.detail : String(error.message ?? error)),
    error.errors?.length > 1
      ? h("ul", { class: "small" }, error.errors.map((fault) => h("li", {}, `${fault.where}: ${fault.what}`)))
      : null,
    error.requestId ? h("span", { class: "small muted" }, "Request ", h("code", {}, error.requestId)) : null,
    retry ? h("div", {}, h("button", { class: "button small", type: "button", onclick: retry }, icon("refresh"), "Try again")) : null));
}

export function notice(kind, title, ...more) {
  const sign = { good: "check", warn: "warn", info: "info" }[kind] ?? "info";
  return h("div", { class: `notice ${kind}`, role: "status" }, icon(sign), h("div", {}, h("strong", {}, title), ...more));
}

export function loading(text = "Loading…") {
  return h("div", { class: "loading", role: "status" }, h("span", { class: "spinner", "aria-hidden": "true" }), text);
}

export function empty(sign, title, ...more) {
  return h("div", { class: "empty" }, icon(sign), h("strong", {}, title), ...more);
}
