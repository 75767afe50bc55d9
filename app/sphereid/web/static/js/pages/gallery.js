// Gallery: who is enrolled, and under which rules. The parts of the page are in gallery/.
import { h, swap } from "../dom.js";
import { icon } from "../icons.js";
import { go, link } from "../router.js";
import { chooseGallery, galleries, gallery, readGallery } from "../state.js";
import { count, date, policy, similarity } from "../text.js";
import { head } from "../ui/head.js";
import { galleryPicker } from "../ui/picker.js";
import { enrollPart } from "./gallery/enroll.js";
import { makeGallery, settingsPart } from "./gallery/settings.js";
import { peoplePart } from "./gallery/people.js";
import { personPart } from "./gallery/person.js";
import { thresholdPart } from "./gallery/threshold.js";

export const page = { id: "gallery", title: "Gallery", needs: ["GET /v1/galleries"], show };

const PARTS = [
  ["people", "People", peoplePart],
  ["enroll", "Enroll", enrollPart],
  ["threshold", "Threshold", thresholdPart],
  ["settings", "Settings", settingsPart],
];

async function show(root, { rest, signal }) {
  const [asked, name = "people", inner] = rest;
  const id = asked ?? (await chosen(name, signal));
  if (id !== gallery()) chooseGallery(id);

  const facts = h("dl", { class: "counts" });
  const body = h("div", { class: "stack" });
  const picker = galleryPicker({
    signal,
    onchange: (found) => {
      if (found && found.id !== id) go("gallery", found.id, name);
    },
  });
  swap(root,
    head("Gallery", "Who is enrolled, and from which similarity on a face counts as theirs.", picker.element,
      h("button", { class: "button", type: "button", onclick: () => makeGallery().then((made) => made && go("gallery", made.id)) }, icon("plus"), "New gallery")),
    facts,
    h("nav", { class: "tabs", "aria-label": "Parts of the gallery" }, PARTS.map(([key, title]) =>
      h("a", { href: link("gallery", id, key), "aria-current": key === name ? "page" : null }, title))),
    body);

  await picker.fill();
  if (signal.aborted || gallery() !== id) return; // it is gone, and the picker went on to another

  const refresh = async () => {
    const now = await readGallery(id, signal);
    swap(facts,
      fact("Identities", count(now.identities)),
      fact("Faces", count(now.faces)),
      fact("Threshold", now.threshold.value > 1 ? "none" : similarity(now.threshold.value), policy(now.threshold)),
      fact("Revision", count(now.revision), `changed ${date(now.updated_at)}`));
    return now;
  };
  const now = await refresh();
  const part = PARTS.find(([key]) => key === name)?.[2] ?? peoplePart;
  const build = name === "people" && inner ? personPart : part;
  await build(body, { gallery: now, identity: inner, refresh, signal, refill: () => picker.fill() });
}

/** The gallery of an address that names none, which it does from now on: what is drawn then is not drawn again. */
async function chosen(name, signal) {
  await galleries(signal);
  history.replaceState(null, "", link("gallery", gallery(), name));
  return gallery();
}

const fact = (name, value, more) => h("div", { class: "count" }, h("dt", {}, name), h("dd", {}, value, more ? h("small", {}, more) : null));
