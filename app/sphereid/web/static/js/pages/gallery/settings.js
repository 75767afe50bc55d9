// A gallery's name and metadata, and how it is made and deleted.
import { at, call } from "../../api.js";
import { h, swap } from "../../dom.js";
import { icon } from "../../icons.js";
import { go } from "../../router.js";
import { slug } from "../../slug.js";
import { chooseGallery } from "../../state.js";
import { date, plural } from "../../text.js";
import { ask, check, field } from "../../ui/dialog.js";
import { problem } from "../../ui/problem.js";
import { toast } from "../../ui/toast.js";
import { objectOf, showReceipt } from "./person.js";

export async function settingsPart(root, { gallery, refill }) {
  const wrong = h("div");
  const form = h("form", { class: "card" },
    h("h2", {}, "Name, metadata, pictures"),
    field("Name", h("input", { name: "name", maxlength: 200, value: gallery.name })),
    field("Metadata", h("textarea", { name: "metadata", rows: 5, spellcheck: "false", class: "mono", value: JSON.stringify(gallery.metadata, null, 2) }), "A JSON object of yours."),
    "keep_crops" in gallery ? h("div", { class: "field" }, check("Keep a picture of each enrolled face", { name: "keep_crops", checked: gallery.keep_crops }),
      h("span", { class: "hint" }, "To show it here, and so that another model can embed the faces anew. Unticking it deletes those that were kept.")) : null,
    wrong,
    h("div", {}, h("button", { class: "button primary", type: "submit" }, "Save")));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const values = new FormData(form);
    swap(wrong);
    try {
      await call("PATCH", at.gallery(gallery.id), { json: {
        name: String(values.get("name")), metadata: objectOf(String(values.get("metadata"))),
        ...("keep_crops" in gallery ? { keep_crops: values.get("keep_crops") !== null } : {}),
      } });
      toast("Saved.");
      await refill();
    } catch (error) {
      swap(wrong, problem(error));
    }
  });
  swap(root, h("div", { class: "halves" }, form,
    h("section", { class: "card", "aria-label": "About the gallery" }, h("h2", {}, "About"),
      h("dl", { class: "facts" },
        h("dt", {}, "Id"), h("dd", {}, h("code", {}, gallery.id)),
        h("dt", {}, "Contract"), h("dd", {}, gallery.contract ? h("code", {}, gallery.contract) : "set by the first enrollment"),
        h("dt", {}, "Created"), h("dd", {}, date(gallery.created_at)),
        h("dt", {}, "Changed"), h("dd", {}, date(gallery.updated_at))),
      h("hr"),
      gallery.id === "default"
        ? h("p", { class: "muted" }, "The gallery “default” always exists and can't be deleted; its identities can.")
        : h("div", {}, h("button", { class: "button danger", type: "button", onclick: () => remove(gallery) }, icon("trash"), "Delete the gallery")))));
}

async function remove(gallery) {
  const receipt = await ask({
    title: "Delete this gallery?",
    action: "Delete everything",
    danger: true,
    body: h("div", { class: "stack" },
      h("p", { class: "break" }, `“${gallery.name || gallery.id}” with ${plural(gallery.identities, "identity", "identities")} and ${plural(gallery.faces, "face")} is removed. This can't be undone.`),
      field(`Type ${gallery.id} to confirm`, h("input", { name: "confirm", required: true, autocomplete: "off", spellcheck: "false" }))),
    work: (values) => {
      if (values.get("confirm") !== gallery.id) {
        throw Object.assign(new Error("The id does not match"), { title: "The id does not match", detail: `Type ${gallery.id} exactly.` });
      }
      return call("DELETE", at.gallery(gallery.id));
    },
  });
  if (!receipt) return;
  await showReceipt(receipt, `The gallery “${gallery.name || gallery.id}”`);
  chooseGallery("default");
  go("gallery", "default");
}

/** The dialog for a new gallery; resolves to it, or undefined. */
export function makeGallery() {
  const name = h("input", { name: "name", required: true, maxlength: 200, autocomplete: "off" });
  const id = h("input", { name: "id", maxlength: 64, pattern: "[A-Za-z0-9][A-Za-z0-9._\\-]*", autocomplete: "off", spellcheck: "false" });
  name.addEventListener("input", () => id.setAttribute("placeholder", name.value ? slug(name.value) : ""));
  return ask({
    title: "New gallery",
    action: "Create",
    body: h("div", { class: "stack" }, field("Name", name),
      field("Id", id, "For programs: letters, digits, “.”, “_” and “-”. Left empty, it is made from the name.")),
    work: (values) => call("POST", at.galleries, {
      json: { id: String(values.get("id")) || slug(String(values.get("name"))), name: String(values.get("name")) },
    }),
  });
}
