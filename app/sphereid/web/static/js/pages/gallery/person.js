// One identity: its name and metadata, its faces, and how it is deleted.
import { at, call, collect, idempotencyKey } from "../../api.js";
import { h, swap } from "../../dom.js";
import { enroll } from "../../enrolling.js";
import { has } from "../../features.js";
import { icon } from "../../icons.js";
import { go, link } from "../../router.js";
import { called, date, decimal, plural, rejection, similarity } from "../../text.js";
import { ask, field, tell } from "../../ui/dialog.js";
import { cameraButton, chooser, droppable } from "../../ui/drop.js";
import { backTo } from "../../ui/head.js";
import { badge } from "../../ui/meter.js";
import { Pictures } from "../../ui/pictures.js";
import { empty, problem } from "../../ui/problem.js";
import { toast } from "../../ui/toast.js";
import { avatar } from "./people.js";

export async function personPart(root, { gallery, identity: id, refresh, signal }) {
  const top = h("div", { class: "card" });
  const faces = h("div");
  const back = backTo("All people", "gallery", gallery.id, "people");
  const pictures = new Pictures(signal);
  const results = h("ul", { class: "files", "aria-label": "Pictures sent", "aria-live": "polite" });

  const load = async () => {
    const [who, found] = await Promise.all([
      call("GET", at.identity(gallery.id, id), { signal }),
      collect(at.faces(gallery.id, id), {}, 500, signal),
    ]);
    drawTop(who);
    drawFaces(who, found);
  };
  const changed = async () => {
    await Promise.all([load(), refresh()]);
  };

  function drawTop(who) {
    const empty = Object.keys(who.metadata).length === 0;
    swap(top,
      h("div", { class: "row between" },
        h("div", { class: "row" }, avatar(gallery, who, pictures),
          h("div", {}, h("h2", { class: "break" }, called(who)), h("code", { class: "muted" }, who.id))),
        h("div", { class: "row" },
          h("button", { class: "button", type: "button", onclick: () => rename(who) }, icon("edit"), "Edit"),
          has("POST /v1/galleries/{}/identities/{}/merge")
            ? h("button", { class: "button", type: "button", onclick: () => merge(who) }, icon("merge"), "Merge") : null,
          h("button", { class: "button danger", type: "button", onclick: () => remove(who) }, icon("trash"), "Delete"))),
      h("dl", { class: "facts" },
        h("dt", {}, "Created"), h("dd", {}, date(who.created_at)),
        h("dt", {}, "Changed"), h("dd", {}, date(who.updated_at)),
        empty ? null : [h("dt", {}, "Metadata"), h("dd", {}, h("code", {}, JSON.stringify(who.metadata, null, 1)))]));
  }

  function drawFaces(who, found) {
    swap(faces, found.length
      ? h("div", { class: "scroll-x", tabindex: 0, role: "region", "aria-label": "Faces" }, h("table", {},
        h("thead", {}, h("tr", {}, ["Picture", "Quality", "Detection score", "Enrolled"].map((name) => h("th", { scope: "col" }, name)),
          h("th", { scope: "col" }, h("span", { class: "visually-hidden" }, "Actions")))),
        h("tbody", {}, found.map((face) => h("tr", {},
          h("td", {}, h("div", { class: "row face-of" }, thumb(face),
            h("div", { class: "break" }, face.source ?? h("span", { class: "muted" }, "no file name"), h("div", { class: "mono muted small" }, face.id)))),
          h("td", {}, decimal(face.quality)), h("td", {}, decimal(face.detection_score)), h("td", {}, date(face.created_at)),
          h("td", { class: "right" }, h("button", {
            class: "button quiet icon-only", type: "button", "aria-label": `Delete face ${face.source ?? face.id}`, onclick: () => removeFace(who, face),
          }, icon("trash"))))))))
      : empty("identify", "No faces yet", h("span", {}, "Without a face this identity can't be recognized.")));
  }

  /** The picture of a face, where it was kept. */
  function thumb(face) {
    if (!gallery.keep_crops || !has("GET /v1/galleries/{}/identities/{}/faces/{}/picture")) return null;
    const image = pictures.of(`${at.face(gallery.id, id, face.id)}/picture`, `Face ${face.source ?? face.id}`, () => image.remove());
    image.classList.add("thumb");
    return image;
  }

  async function rename(who) {
    const done = await ask({
      title: "Edit the identity",
      body: h("div", { class: "stack" },
        field("Name", h("input", { name: "name", required: true, maxlength: 200, value: who.name })),
        field("Metadata", h("textarea", { name: "metadata", rows: 5, spellcheck: "false", class: "mono", value: JSON.stringify(who.metadata, null, 2) }),
          "A JSON object of yours; “color”: \"#rrggbb\" colors the boxes of this identity.")),
      work: (values) => call("PATCH", at.identity(gallery.id, id), {
        json: { name: String(values.get("name")), metadata: objectOf(String(values.get("metadata"))) },
      }),
    });
    if (done) {
      toast("Saved.");
      await changed();
    }
  }

  /** Another identity turns out to be this person: its faces come here. */
  async function merge(who) {
    const others = (await collect(at.identities(gallery.id), {}, 1000, signal)).filter((each) => each.id !== id);
    const search = h("input", { type: "search", autocomplete: "off", placeholder: "Part of a name", maxlength: 200 });
    const select = h("select", { name: "source", size: 8, required: true });
    const list = () => {
      const wanted = search.value.trim().toLowerCase();
      swap(select, others.filter((each) => !wanted || called(each).toLowerCase().includes(wanted) || each.id.includes(wanted))
        .map((each) => h("option", { value: each.id }, `${called(each)}, ${each.id} (${plural(each.faces, "face")})`)));
    };
    search.addEventListener("input", list);
    list();
    const merged = await ask({
      title: `Merge into ${called(who)}`,
      action: "Merge",
      danger: true,
      body: h("div", { class: "stack" },
        h("p", { class: "break" }, `The faces of the other identity become faces of ${called(who)}, whose name and metadata stay. The other identity is gone then; this can't be undone.`),
        field("Search", search), field("The other identity", select)),
      work: (values) => call("POST", at.merge(gallery.id, id), {
        json: { source: String(values.get("source")) }, headers: { "Idempotency-Key": idempotencyKey() }, patience: 5,
      }),
    });
    if (merged) {
      toast(`Merged. ${called(merged)} has ${plural(merged.faces, "face")} now.`);
      await changed();
    }
  }

  async function remove(who) {
    const receipt = await ask({
      title: "Delete this identity?",
      action: "Delete",
      danger: true,
      body: h("p", { class: "break" }, `${called(who)} and ${plural(who.faces, "face")} are removed from the database, the search index and its snapshot. This can't be undone.`),
      work: () => call("DELETE", at.identity(gallery.id, id)),
    });
    if (receipt) {
      await showReceipt(receipt, `“${called(who)}”`);
      go("gallery", gallery.id, "people");
    }
  }

  async function removeFace(who, face) {
    const receipt = await ask({
      title: "Delete this face?",
      action: "Delete",
      danger: true,
      body: h("p", { class: "break" }, `The face “${face.source ?? face.id}” of ${called(who)} is removed for good.`),
      work: () => call("DELETE", at.face(gallery.id, id, face.id)),
    });
    if (receipt) {
      toast(`Deleted ${plural(receipt.faces, "face")}; the gallery is at revision ${receipt.revision}.`);
      await changed();
    }
  }

  async function add(files) {
    for (const file of files) {
      const state = h("span");
      const more = h("span", { class: "small muted" });
      swap(state, badge("busy", "sending"));
      results.append(h("li", {}, h("span"), h("div", { class: "what" }, h("span", {}, file.name), more), state));
      try {
        const answer = await enroll(gallery.id, id, file, { signal });
        swap(state, badge("match", "enrolled"));
        const others = answer.duplicates.filter((each) => each.identity.id !== id);
        if (others.length) more.textContent = `Resembles ${others.map((each) => `${called(each.identity)} (${similarity(each.similarity)})`).join(", ")}`;
      } catch (error) {
        if (error.name === "AbortError") return;
        swap(state, badge("rejected", "not enrolled"));
        more.textContent = error.document?.rejected?.[0]?.reasons.map(rejection).join(", ") || `${error.message}: ${error.detail}`;
      }
    }
    await changed();
  }

  swap(root,
    back,
    top,
    h("section", { class: "card", "aria-label": "Faces of the identity" }, h("h2", {}, "Faces"), faces,
      droppable(h("div", { class: "drop compact" }, h("span", { class: "muted" }, "Drop pictures of this person, one face each"),
        h("div", { class: "row" }, chooser({ label: "Choose pictures", multiple: true, onfiles: add }), cameraButton((shot) => add([shot])))), add),
      results));
  try {
    await load();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    swap(root, back, problem(error));
  }
}

/** What a delete removed, until it is closed. */
export function showReceipt(receipt, what) {
  return tell({
    title: "Deleted",
    body: h("div", { class: "stack", id: "receipt" }, h("p", { class: "break" }, `${what} is gone. The receipt:`), h("dl", { class: "facts" },
      h("dt", {}, "Identities"), h("dd", {}, receipt.identities),
      h("dt", {}, "Faces"), h("dd", {}, receipt.faces),
      h("dt", {}, "Revision"), h("dd", {}, receipt.revision ?? "the gallery is gone"),
      h("dt", {}, "Time"), h("dd", {}, date(new Date().toISOString())))),
  });
}

export function objectOf(text) {
  let value;
  try {
    value = JSON.parse(text.trim() || "{}");
  } catch (error) {
    throw Object.assign(new Error("This is not JSON"), { title: "This is not JSON", detail: error.message });
  }
  if (value === null || typeof value !== "object" || Array.isArray(value)) {
    throw Object.assign(new Error("Metadata must be a JSON object"), { title: "Metadata must be a JSON object", detail: 'For example {"team": "blue"}.' });
  }
  return value;
}
