import { h } from "../dom.js";

/** A short word that something was done; the region around it is read out. */
export function toast(text) {
  const note = h("div", { class: "toast" }, text);
  document.getElementById("toasts").append(note);
  setTimeout(() => note.remove(), 6000);
}
