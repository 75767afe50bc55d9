// Modal dialogs on <dialog>: the browser keeps the focus inside and gives it back.
import { h, swap, uid } from "../dom.js";
import { problem } from "./problem.js";

/**
 * Ask with a form. `work` gets the form's values when it is sent; while it throws, the dialog stays open and shows why.
 * Resolves to what `work` returned, or undefined when the dialog was closed.
 */
export function ask({ title, body, action = "Save", danger = false, wide = false, work }) {
  return new Promise((resolve) => {
    const id = uid("dialog");
    const wrong = h("div", { hidden: true });
    const send = h("button", { class: `button primary${danger ? " danger" : ""}`, type: "submit" }, action);
    let answer;
    const form = h("form", { novalidate: false },
      h("h2", { id }, title), body, wrong,
      h("div", { class: "actions" },
        h("button", { class: "button", type: "button", onclick: () => dialog.close() }, "Cancel"), send));
    const dialog = h("dialog", { "aria-labelledby": id, class: wide ? "wide" : null }, form);
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      send.disabled = true;
      wrong.hidden = true;
      try {
        answer = await work(new FormData(form));
        dialog.close();
      } catch (error) {
        swap(wrong, problem(error));
        wrong.hidden = false;
      } finally {
        send.disabled = false;
      }
    });
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(answer);
    });
    document.body.append(dialog);
    dialog.showModal();
    (form.querySelector("[data-first]") ?? form.querySelector("input, select, textarea"))?.focus();
  });
}

/** Show something until it is closed. */
export function tell({ title, body, action = "Close", wide = false }) {
  return new Promise((resolve) => {
    const id = uid("dialog");
    const dialog = h("dialog", { "aria-labelledby": id, class: wide ? "wide" : null },
      h("div", {}, h("h2", { id }, title), body,
        h("div", { class: "actions" }, h("button", { class: "button primary", type: "button", onclick: () => dialog.close() }, action))));
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve();
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

/** A labeled field: `field("Name", input, "a hint")`. */
export function field(label, input, hint) {
  const id = input.id || uid("field");
  input.id = id;
  const about = hint ? h("span", { class: "hint", id: `${id}-hint` }, hint) : null;
  if (about) input.setAttribute("aria-describedby", about.id);
  return h("div", { class: "field" }, h("label", { for: id }, label), input, about);
}

export function check(label, props) {
  return h("label", { class: "check" }, h("input", { type: "checkbox", ...props }), h("span", {}, label));
}

export function radio(label, props) {
  return h("label", { class: "check" }, h("input", { type: "radio", ...props }), h("span", {}, label));
}
