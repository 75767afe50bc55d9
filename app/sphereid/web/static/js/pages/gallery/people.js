// The list of identities, with search and pages.
import { at, call, url } from "../../api.js";
import { h, swap } from "../../dom.js";
import { has } from "../../features.js";
import { icon } from "../../icons.js";
import { go, link } from "../../router.js";
import { called, plural } from "../../text.js";
import { slug } from "../../slug.js";
import { ask, field } from "../../ui/dialog.js";
import { Pictures } from "../../ui/pictures.js";
import { empty, loading, problem } from "../../ui/problem.js";

export async function peoplePart(root, { gallery, signal }) {
  const list = h("ul", { class: "people", "aria-label": "Identities" });
  const note = h("p", { class: "small muted", role: "status" });
  const more = h("button", { class: "button", type: "button", hidden: true, onclick: () => load() }, "Show more");
  const search = h("input", { type: "search", placeholder: "Part of a name", autocomplete: "off", maxlength: 200 });
  const box = h("div", { class: "card flush" });
  const pictures = new Pictures(signal);
  let cursor = "";
  let listed = 0;

  const load = async (fresh = false) => {
    if (fresh) {
      cursor = "";
      listed = 0;
      if (!list.childElementCount) swap(box, loading());
    }
    const name = search.value.trim();
    try {
      const answer = await call("GET", url(at.identities(gallery.id), { name, cursor, limit: 50 }), { signal });
      if (name !== search.value.trim()) return; // an older search that came late
      if (fresh) swap(list);
      for (const each of answer.items) list.append(row(gallery, each, pictures));
      listed += answer.items.length;
      cursor = answer.next_cursor ?? "";
      more.hidden = !cursor;
      if (listed) swap(box, list);
      else if (name) swap(box, empty("search", `No name holds “${name}”`));
      else {
        swap(box, empty("gallery", "Nobody is enrolled yet", h("span", {}, "One good picture a person is enough to begin."),
          h("a", { class: "button primary", href: link("gallery", gallery.id, "enroll") }, icon("plus"), "Enroll people")));
      }
      note.textContent = listed ? `${plural(listed, "identity", "identities")} listed${cursor ? ", there are more" : ""}` : "";
    } catch (error) {
      if (error.name !== "AbortError") swap(box, problem(error, { retry: () => load(true) }));
    }
  };

  let timer = 0;
  search.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(() => load(true), 200);
  });

  swap(root,
    h("div", { class: "row end between" },
      h("div", { class: "grow" }, field("Search", search)),
      h("div", { class: "row" },
        h("button", { class: "button", type: "button", onclick: () => makeIdentity(gallery.id) }, icon("plus"), "New identity"),
        h("a", { class: "button primary", href: link("gallery", gallery.id, "enroll") }, icon("upload"), "Enroll people"))),
    box, h("div", { class: "row between" }, note, more));
  await load(true);
}

function row(gallery, identity, pictures) {
  return h("li", {}, h("a", { href: link("gallery", gallery.id, "people", identity.id) },
    avatar(gallery, identity, pictures),
    h("span", { class: "who" }, h("strong", { title: called(identity) }, called(identity)), h("span", { class: "mono muted" }, identity.id)),
    h("span", { class: "small muted nowrap" }, plural(identity.faces, "face"))));
}

/** An identity's best picture where the gallery keeps them, and initials where it has none. */
export function avatar(gallery, identity, pictures) {
  const letters = initials(called(identity));
  const place = h("span", { class: "avatar", "aria-hidden": "true" }, letters);
  if (gallery.keep_crops && identity.faces > 0 && has("GET /v1/galleries/{}/identities/{}/picture")) {
    swap(place, pictures.of(at.portrait(gallery.id, identity.id), "", () => swap(place, letters)));
  }
  return place;
}

function initials(name) {
  const words = name.trim().split(/\s+/);
  return [words[0], words.length > 1 ? words.at(-1) : ""].map((word) => Array.from(word ?? "")[0] ?? "").join("").toUpperCase();
}

async function makeIdentity(gallery) {
  const name = h("input", { name: "name", required: true, maxlength: 200, autocomplete: "off" });
  const id = h("input", { name: "id", maxlength: 64, pattern: "[A-Za-z0-9][A-Za-z0-9._\\-]*", autocomplete: "off", spellcheck: "false" });
  name.addEventListener("input", () => id.setAttribute("placeholder", name.value ? slug(name.value) : ""));
  const made = await ask({
    title: "New identity",
    action: "Create",
    body: h("div", { class: "stack" }, field("Name", name),
      field("Id", id, "For programs: letters, digits, “.”, “_” and “-”. Left empty, it is made from the name.")),
    work: (values) => call("POST", at.identities(gallery), {
      json: { id: String(values.get("id")) || slug(String(values.get("name"))), name: String(values.get("name")) },
    }),
  });
  if (made) go("gallery", gallery, "people", made.id);
}
