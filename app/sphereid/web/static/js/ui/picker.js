// Which gallery to work in.
import { h, swap, uid } from "../dom.js";
import { chooseGallery, galleries, gallery } from "../state.js";
import { count } from "../text.js";

/** A select of all galleries. onchange(gallery) is told at first and after every change. */
export function galleryPicker({ signal, onchange = () => {}, label = "Gallery" }) {
  const id = uid("gallery");
  const select = h("select", { id, name: "gallery" });
  let all = [];
  const fill = async () => {
    all = await galleries(signal);
    swap(select, all.map((each) => h("option", { value: each.id, selected: each.id === gallery() },
      `${each.name || each.id} (${count(each.faces)} ${each.faces === 1 ? "face" : "faces"})`)));
    select.value = gallery();
    onchange(all.find((each) => each.id === gallery()) ?? null, all);
  };
  select.addEventListener("change", () => {
    chooseGallery(select.value);
    onchange(all.find((each) => each.id === select.value) ?? null, all);
  });
  return { element: h("div", { class: "field" }, h("label", { for: id }, label), select), fill };
}
