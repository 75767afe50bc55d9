// Unknowns: faces that nobody was named for, by person. A name or a discard is one click.
import { at, call, idempotencyKey } from "../api.js";
import { h, swap } from "../dom.js";
import { resolve } from "../enrolling.js";
import { icon } from "../icons.js";
import { gallery } from "../state.js";
import { called, date, plural, policy, shorten, similarity } from "../text.js";
import { ask, check, field } from "../ui/dialog.js";
import { head } from "../ui/head.js";
import { Pictures } from "../ui/pictures.js";
import { galleryPicker } from "../ui/picker.js";
import { empty, loading, notice, problem } from "../ui/problem.js";
import { toast } from "../ui/toast.js";

export const page = { id: "unknowns", title: "Unknowns", needs: ["GET /v1/galleries/{}/unknowns", "POST /v1/galleries/{}/unknowns/name"], show };

const SHOWN = 24; // faces of one person that are drawn; a name goes to all that are ticked or not drawn

async function show(root, { signal }) {
  const list = h("div", { class: "stack" });
  const rules = h("div");
  const pictures = new Pictures(signal);
  let inbox = null;

  const picker = galleryPicker({ signal, onchange: (found) => found && look(true) });
  const clear = h("button", { class: "button", type: "button", disabled: true, onclick: () => discardAll() }, icon("trash"), "Discard all");
  const refresh = h("button", { class: "button", type: "button", onclick: () => look() }, icon("refresh"), "Refresh");

  async function look(other = false) {
    const where = gallery();
    if (other) swap(list, loading());
    try {
      const found = await call("GET", at.unknowns(where), { signal });
      if (where === gallery()) draw(found, other);
    } catch (error) {
      if (error.name !== "AbortError") swap(list, problem(error, { retry: () => look(true) }));
    }
  }

  function draw(found, other = false) {
    inbox = found;
    clear.disabled = inbox.faces === 0;
    if (other) swap(rules, rulesForm(found));
    swap(list, inbox.clusters.length ? [
      h("p", { class: "muted small", role: "status" }, `${plural(inbox.clusters.length, "person", "people")}, ${plural(inbox.faces, "face")}. `
        + `Faces that reach ${inbox.threshold.value > 1 ? "no similarity" : similarity(inbox.threshold.value)} (${policy(inbox.threshold)}) with each other count as one person.`),
      h("ol", { class: "unknowns", "aria-label": "Unknown people" }, inbox.clusters.map((cluster, n) => card(cluster, n)))]
      : inbox.keep
        ? h("div", { class: "card" }, empty("unknowns", "The inbox is empty", h("span", {}, "Faces that are decided “unknown” from now on are kept here.")))
        : notice("info", "This gallery keeps no unknown faces", h("span", {}, "Allow it above, and whoever is decided “unknown” can be named here later.")));
  }

  function card(cluster, n) {
    const title = `Unknown person ${n + 1}`;
    const drawn = cluster.faces.slice(0, SHOWN);
    const boxes = drawn.map((face, place) => h("input", { type: "checkbox", name: "face", value: face.id, checked: true, "aria-label": `Face ${place + 1} of ${title}` }));
    const name = h("input", { name: "name", required: true, maxlength: 200, autocomplete: "off", placeholder: "Who is this?", "aria-label": `Name of ${title}` });
    const wrong = h("div");
    const near = cluster.nearest;
    const chosen = () => [...boxes.filter((box) => box.checked).map((box) => box.value), ...cluster.faces.slice(SHOWN).map((face) => face.id)];
    const buttons = [];
    const act = async (work) => {
      swap(wrong);
      for (const button of buttons) button.disabled = true;
      try {
        toast(await work(chosen()));
        await look();
      } catch (error) {
        if (error.name === "AbortError") return;
        swap(wrong, problem(error));
        for (const button of buttons) button.disabled = false;
      }
    };
    buttons.push(
      h("button", { class: "button primary", type: "submit" }, icon("check"), "Name"),
      h("button", { class: "button", type: "button", "aria-label": `Discard ${title}`, onclick: () => act(discard) }, icon("trash"), "Discard"));
    if (near) {
      buttons.push(h("button", {
        class: "button quiet", type: "button", title: called(near.identity), onclick: () => act((faces) => join(faces, near.identity.id)),
      }, icon("plus"), `It is ${shorten(called(near.identity))}`));
    }
    const form = h("form", { class: "row", onsubmit: (event) => {
      event.preventDefault();
      act((faces) => give(faces, name.value));
    } }, h("div", { class: "grow" }, name), buttons);
    return h("li", { class: "card", "aria-label": title },
      h("div", { class: "unknown-faces" }, drawn.map((face, place) => h("label", { class: "unknown-face" },
        pictures.of(`${at.unknowns(gallery())}/${face.id}/picture`, `Face ${place + 1} of ${title}`), boxes[place])),
      cluster.faces.length > SHOWN ? h("span", { class: "muted small" }, `and ${cluster.faces.length - SHOWN} more`) : null),
      h("p", { class: "small muted" }, plural(cluster.faces.length, "face"), " · ",
        [...new Set([date(cluster.first_seen_at), date(cluster.last_seen_at)])].join(" to "),
        sources(cluster), near ? ` · nearest is ${called(near.identity)} at ${similarity(near.similarity)}` : ""),
      form, wrong);
  }

  async function give(faces, name) {
    some(faces);
    const who = await resolve(gallery(), name, signal);
    return join(faces, who.id, who.exists ? undefined : who.name);
  }

  async function join(faces, identity, name) {
    some(faces);
    const named = await call("POST", `${at.unknowns(gallery())}/name`, {
      json: { faces, identity, name }, headers: { "Idempotency-Key": idempotencyKey() }, patience: 5, signal,
    });
    return `Enrolled ${plural(named.faces, "face")} of ${called(named.identity)}.`;
  }

  async function discard(faces) {
    some(faces);
    const receipt = await call("POST", `${at.unknowns(gallery())}/discard`, { json: { faces }, signal });
    return `Discarded ${plural(receipt.faces, "face")}.`;
  }

  async function discardAll() {
    const receipt = await ask({
      title: "Discard all unknown faces?",
      action: "Discard all",
      danger: true,
      body: h("p", {}, `${plural(inbox.faces, "face")} of ${plural(inbox.clusters.length, "person", "people")}, their pictures and embeddings, are deleted for good.`),
      work: () => call("DELETE", at.unknowns(gallery())),
    });
    if (!receipt) return;
    toast(`Discarded ${plural(receipt.faces, "face")}.`);
    await look();
  }

  function rulesForm(now) {
    const keep = check("Keep unknown faces of this gallery", { name: "keep", checked: now.keep });
    const most = h("input", { type: "number", name: "most", min: 1, max: 2000, required: true, value: String(now.most) });
    const days = h("input", { type: "number", name: "days", min: 1, max: 365, required: true, value: String(now.days) });
    const wrong = h("div");
    const form = h("form", { class: "stack" }, keep,
      h("p", { class: "small muted" }, "Of each unknown face a small picture, its embedding, its quality and where it came from are stored, until it is named, discarded, or beyond these bounds. "
        + "Tell the people whom your cameras see. Unticking this deletes what was kept."),
      h("div", { class: "halves" }, field("At most, faces", most), field("At most, days", days)), wrong,
      h("div", {}, h("button", { class: "button primary", type: "submit" }, "Save")));
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      swap(wrong);
      try {
        const found = await call("PATCH", at.unknowns(gallery()), {
          json: { keep: keep.querySelector("input").checked, most: Number(most.value), days: Number(days.value) }, signal,
        });
        toast(found.keep ? "Saved. Unknown faces are kept." : "Saved. No unknown face is kept.");
        draw(found);
      } catch (error) {
        if (error.name !== "AbortError") swap(wrong, problem(error));
      }
    });
    return h("details", { class: "card", open: !now.keep }, h("summary", {}, "What is kept"), form);
  }

  swap(root, head("Unknowns", "Faces that nobody was named for.", picker.element, refresh, clear), rules, list);
  await picker.fill();
}

function some(faces) {
  if (!faces.length) throw Object.assign(new Error("No face is ticked"), { title: "No face is ticked", detail: "Tick those that show this person." });
}

function sources(cluster) {
  const from = [...new Set(cluster.faces.map((face) => face.source).filter(Boolean))];
  return from.length ? ` · from ${from.slice(0, 3).join(", ")}${from.length > 3 ? ` and ${from.length - 3} more` : ""}` : "";
}
