// Enrolling many pictures: dropped files or folders, who is on each, and what became of it.
import { h, swap } from "../../dom.js";
import { enroll, resolve } from "../../enrolling.js";
import { icon } from "../../icons.js";
import { link } from "../../router.js";
import { nameOfFile } from "../../slug.js";
import { bytes, called, plural, rejection, similarity } from "../../text.js";
import { check, field, radio } from "../../ui/dialog.js";
import { cameraButton, chooser, droppable, folderOf, looksLikePicture, pasteable } from "../../ui/drop.js";
import { badge } from "../../ui/meter.js";
import { toast } from "../../ui/toast.js";

const AT_ONCE = 2; // the service batches; more would only queue there

export async function enrollPart(root, { gallery, refresh, refill, signal }) {
  let items = [];
  let stopper = null;
  const list = h("ul", { class: "files", "aria-label": "Pictures" });
  const bar = h("progress", { "aria-label": "Progress of the enrollment", value: 0 });
  const summary = h("p", { class: "summary", role: "status", id: "enroll-summary" });
  const go = h("button", { class: "button primary", type: "button", id: "enroll-start", onclick: start }, icon("check"), "Enroll");
  const stop = h("button", { class: "button", type: "button", hidden: true, onclick: () => stopper?.abort() }, icon("stop"), "Stop");
  const retry = h("button", { class: "button", type: "button", hidden: true, onclick: again }, icon("refresh"), "Try the failed ones again");
  const clear = h("button", { class: "button quiet", type: "button", onclick: () => reset() }, "Clear the list");
  const one = h("input", { name: "one", maxlength: 200, autocomplete: "off", oninput: () => items.forEach(redrawName) });
  const oneField = field("Name", one);
  const strict = h("select", { name: "quality" },
    h("option", { value: "normal" }, "normal: refuse tiny faces"), h("option", { value: "strict" }, "strict: refuse any fault"), h("option", { value: "off" }, "off: take every face"));
  const largest = check("Where several faces are on a picture, take the largest", { name: "largest" });
  const ways = h("fieldset", { onchange: turn }, h("legend", {}, "Who is on the pictures"),
    radio("One person a folder: the folder's name", { name: "way", value: "folder" }),
    radio("One person a file: the file's name, without numbers", { name: "way", value: "file", checked: true }),
    radio("The same person on all", { name: "way", value: "one" }), oneField);
  const card = h("section", { class: "card", hidden: true, "aria-label": "Enrollment" },
    h("div", { class: "halves" }, ways, h("div", { class: "stack" }, field("Quality gate", strict), largest)),
    h("div", { class: "row" }, go, stop, retry, clear), bar, summary, list);

  const way = () => ways.querySelector("input:checked").value;
  function nameOf(item) {
    if (way() === "one") return one.value.trim();
    if (way() === "folder") return folderOf(item.file) || nameOfFile(item.file.name);
    return nameOfFile(item.file.name);
  }

  function turn() {
    oneField.hidden = way() !== "one";
    items.forEach(redrawName);
  }

  function take(files) {
    if (stopper) return;
    const pictures = files.filter(looksLikePicture);
    if (files.length > pictures.length) toast(`${plural(files.length - pictures.length, "file")} left out: not a picture.`);
    for (const file of pictures) add(file);
    if (files.some(folderOf) && !items.some((item) => item.state)) ways.querySelector("[value=folder]").checked = true;
    card.hidden = items.length === 0;
    turn();
    count();
  }

  function add(file) {
    const source = URL.createObjectURL(file);
    const item = { file, source, state: "", who: h("strong"), note: h("span", { class: "small muted" }), mark: h("span") };
    item.row = h("li", {},
      h("img", { class: "thumb", alt: "", src: source, loading: "lazy", onerror: (event) => event.target.removeAttribute("src") }),
      h("div", { class: "what" }, item.who, h("span", { class: "small muted" }, file.webkitRelativePath || file.name, " · ", bytes(file.size)), item.note),
      item.mark);
    items.push(item);
    list.append(item.row);
    set(item, "");
  }

  function redrawName(item) {
    if (!item.state || item.state === "failed") item.who.textContent = nameOf(item) || "no name yet";
  }

  const BADGES = { "": ["unknown", "waiting"], busy: ["busy", "sending"], done: ["match", "enrolled"], failed: ["rejected", "not enrolled"] };
  function set(item, state, ...note) {
    item.state = state;
    swap(item.mark, badge(...BADGES[state]));
    swap(item.note, ...note);
  }

  function count() {
    const by = (state) => items.filter((item) => item.state === state).length;
    const done = by("done");
    const failed = by("failed");
    bar.max = Math.max(items.length, 1);
    bar.value = done + failed;
    summary.textContent = done + failed
      ? `${done} of ${plural(items.length, "picture")} enrolled${failed ? `, ${failed} not` : ""}`
      : `${plural(items.length, "picture")} ready`;
    go.hidden = stopper !== null || by("") === 0;
    stop.hidden = stopper === null;
    retry.hidden = stopper !== null || failed === 0;
    clear.hidden = stopper !== null;
  }

  async function start() {
    if (way() === "one" && !one.value.trim()) {
      one.setCustomValidity("Say who is on the pictures");
      one.reportValidity();
      one.setCustomValidity("");
      return;
    }
    stopper = new AbortController();
    const until = AbortSignal.any([signal, stopper.signal]);
    const queue = items.filter((item) => item.state === "");
    const people = new Map(); // name → promise of {id, exists}: two pictures of a person must not race to make them
    count();
    const worker = async () => {
      for (let item = queue.shift(); item && !until.aborted; item = queue.shift()) await send(item, people, until);
    };
    await Promise.all(Array.from({ length: AT_ONCE }, worker));
    stopper = null;
    if (signal.aborted) return;
    count();
    await Promise.all([refresh(), refill()]);
  }

  async function send(item, people, until) {
    const name = nameOf(item);
    set(item, "busy");
    try {
      if (!people.has(name)) people.set(name, resolve(gallery.id, name, until));
      const who = await people.get(name);
      const answer = await enroll(gallery.id, who.id, item.file, {
        name: who.exists ? undefined : who.name, quality: strict.value, face: largest.querySelector("input").checked ? "largest" : "only", signal: until,
      });
      const others = answer.duplicates.filter((each) => each.identity.id !== who.id);
      set(item, "done", h("a", { href: link("gallery", gallery.id, "people", who.id) }, who.id),
        others.length ? ` · resembles ${others.map((each) => `${called(each.identity)} (${similarity(each.similarity)})`).join(", ")}` : "");
    } catch (error) {
      if (error.name === "AbortError") {
        set(item, "");
        return;
      }
      if (people.has(name)) people.get(name).catch(() => people.delete(name));
      const reasons = error.document?.rejected?.[0]?.reasons;
      set(item, "failed", reasons ? reasons.map(rejection).join(", ") : `${error.message}: ${error.detail ?? ""}`);
    }
    count();
  }

  function again() {
    for (const item of items.filter((each) => each.state === "failed")) set(item, "");
    start();
  }

  function reset() {
    for (const item of items) URL.revokeObjectURL(item.source);
    items = [];
    swap(list);
    card.hidden = true;
  }

  swap(root,
    droppable(h("div", { class: "drop", id: "drop" }, icon("folder"), h("strong", {}, "Drop pictures or a folder here"),
      h("span", { class: "muted" }, "One face a picture. A folder may hold a folder for each person."),
      h("div", { class: "row" }, chooser({ label: "Choose pictures", primary: true, multiple: true, onfiles: take }),
        chooser({ label: "Choose a folder", sign: "folder", folder: true, multiple: true, onfiles: take }),
        cameraButton((shot) => take([shot])))), take),
    card,
    h("p", { class: "small muted" }, "Enroll only people who agreed to it. Pictures are not stored: what stays is an embedding, from which identities are compared. Deleting removes it."));
  turn();
  pasteable(take, signal);
  signal.addEventListener("abort", () => items.forEach((item) => URL.revokeObjectURL(item.source)));
}
