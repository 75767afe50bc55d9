// Monitors: cameras that the service watches by itself. The list and the form; one monitor's page is in monitors/.
import { call, idempotencyKey, pause } from "../api.js";
import { h, swap } from "../dom.js";
import { has } from "../features.js";
import { icon } from "../icons.js";
import { go, link } from "../router.js";
import { gallery } from "../state.js";
import { date, plural } from "../text.js";
import { check, field, tell } from "../ui/dialog.js";
import { head } from "../ui/head.js";
import { galleryPicker } from "../ui/picker.js";
import { empty, loading, notice, problem } from "../ui/problem.js";
import { toast } from "../ui/toast.js";
import { removeMonitor, showMonitor, stateBadge, titleOf } from "./monitors/monitor.js";

export const page = { id: "monitors", title: "Monitors", needs: ["GET /v1/monitors", "POST /v1/monitors", "GET /v1/monitors/{}/events"], show };

const EVERY_MS = 2000;

async function show(root, { rest, signal }) {
  if (rest[0]) {
    await showMonitor(root, rest[0], signal);
    return;
  }
  const list = h("ul", { class: "files roomy", "aria-label": "Monitors, oldest first" });
  const box = h("div", { class: "card" }, loading());
  const form = await addForm(signal, (made) => {
    toast(`${titleOf(made)} is being watched.`);
    go("monitors", made.id);
  });
  swap(root, head("Monitors", "Cameras that the service watches by itself, also while this page is closed."),
    h("div", { class: "columns" }, h("section", { class: "stack", "aria-label": "Monitors" }, box), form.element));
  await form.fill();

  const rows = new Map(); // monitor id → its row, kept from look to look, so that nothing is exchanged under a finger
  const look = async () => {
    const { items } = await call("GET", "/v1/monitors", { signal });
    for (const each of items) {
      if (!rows.has(each.id)) rows.set(each.id, row(look));
      rows.get(each.id).draw(each);
    }
    const wanted = items.map((each) => rows.get(each.id).element);
    if (wanted.length !== list.childElementCount || wanted.some((element, n) => list.children[n] !== element)) swap(list, wanted);
    if (!items.length) swap(box, empty("monitors", "No monitor yet", h("span", {}, "Add a camera, and the service tells who comes and goes.")));
    else if (!box.contains(list)) swap(box, list);
  };
  await look();
  again(look, box, signal);
}

async function again(look, box, signal) {
  for (;;) {
    try {
      await pause(EVERY_MS, signal);
      if (!document.hidden) await look();
    } catch (error) {
      if (error.name === "AbortError") return;
      swap(box, problem(error));
    }
  }
}

function row(look) {
  let now = null;
  let shown = "";
  const state = h("span");
  const more = h("div", { class: "stack tight" });
  const what = h("div", { class: "what" });
  const remove = h("button", { class: "button small", type: "button", onclick: async () => {
    if (await removeMonitor(now)) await look();
  } }, icon("trash"), "Remove");
  return {
    element: h("li", {}, state, what, remove),
    draw(monitor) {
      const text = JSON.stringify(monitor);
      if (text === shown) return;
      if (now === null) {
        swap(what, h("a", { class: "break", href: link("monitors", monitor.id) }, titleOf(monitor)), more);
        remove.setAttribute("aria-label", `Remove ${titleOf(monitor)}`);
      }
      shown = text;
      now = monitor;
      swap(state, stateBadge(monitor));
      swap(more,
        h("span", { class: "small muted break" }, `${monitor.source} · gallery ${monitor.gallery}`),
        h("span", { class: "small muted num" }, plural(monitor.events, "event"), " · ", plural(monitor.frames, "frame"),
          monitor.last_frame_at ? ` · last ${date(monitor.last_frame_at)}` : ""),
        monitor.detail ? h("span", { class: "small" }, monitor.detail) : null);
    },
  };
}

async function addForm(signal, onmade) {
  const source = h("input", { name: "source", required: true, maxlength: 2000, autocomplete: "off", spellcheck: "false", placeholder: "rtsp://camera.lan/1" });
  const name = h("input", { name: "name", maxlength: 200, autocomplete: "off", placeholder: "Front door" });
  const rate = h("input", { type: "number", name: "rate", min: 0.1, max: 30, step: "any", required: true, value: "5" });
  const hook = h("input", { type: "url", name: "webhook", maxlength: 2000, autocomplete: "off", spellcheck: "false" });
  const strangers = check("Also tell of people who are not enrolled", { name: "strangers", checked: true });
  const picker = galleryPicker({ signal, label: "Look for the people of gallery" });
  const wrong = h("div");
  const send = h("button", { class: "button primary", type: "submit" }, icon("plus"), "Watch");
  const allowed = await rules(signal);
  const form = h("form", { class: "stack" },
    allowed && !allowed.sources ? notice("info", "No source is allowed yet",
      h("span", {}, "Whoever runs the service names the cameras in ", h("code", {}, "SPHEREID_MONITORS__SOURCES"), " and starts it again.")) : null,
    field("Source", source, h("span", {}, "An address, a camera's number, or a file of the server",
      allowed?.sources ? [". Allowed: ", h("code", {}, allowed.sources)] : null, ".")),
    field("Name", name), picker.element,
    field("Frames looked at a second, at most", rate), strangers,
    field("Webhook", hook, h("span", {}, "Optional: an address that gets every event, signed",
      allowed ? (allowed.webhooks ? [". Allowed: ", h("code", {}, allowed.webhooks)] : [". None is allowed; ", h("code", {}, "SPHEREID_MONITORS__WEBHOOKS"), " names them"]) : null, ".")),
    wrong, h("div", {}, send));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    swap(wrong);
    send.disabled = true;
    try {
      const made = await call("POST", "/v1/monitors", {
        json: {
          source: source.value.trim(), name: name.value.trim(), gallery: gallery(), rate: Number(rate.value),
          strangers: strangers.querySelector("input").checked, webhook: hook.value.trim() ? { url: hook.value.trim() } : null,
        },
        headers: { "Idempotency-Key": idempotencyKey() }, signal,
      });
      if (made.webhook?.secret) await tellSecret(made.webhook);
      onmade(made);
    } catch (error) {
      if (error.name !== "AbortError") swap(wrong, problem(error));
    } finally {
      send.disabled = false;
    }
  });
  return { element: h("section", { class: "card", "aria-label": "Add a monitor" }, h("h2", {}, "Add a monitor"), form), fill: picker.fill };
}

/** What the settings allow; null where the service does not tell. */
async function rules(signal) {
  if (!has("GET /v1/settings")) return null;
  const { items } = await call("GET", "/v1/settings", { signal });
  const value = (name) => items.find((each) => each.variable === `SPHEREID_MONITORS__${name}`)?.value ?? "";
  return { sources: value("SOURCES"), webhooks: value("WEBHOOKS") };
}

function tellSecret(webhook) {
  const secret = h("input", { readonly: true, value: webhook.secret, "aria-label": "The webhook's secret", class: "mono" });
  secret.addEventListener("focus", () => secret.select());
  return tell({
    title: "The webhook's secret",
    body: h("div", { class: "stack" },
      h("p", {}, "With it the receiver checks that an event comes from this service. It is shown this once: keep it now."), secret,
      navigator.clipboard ? h("div", {}, h("button", { class: "button", type: "button", onclick: async () => {
        await navigator.clipboard.writeText(webhook.secret);
        toast("Copied.");
      } }, "Copy")) : null),
    action: "I have kept it",
  });
}
