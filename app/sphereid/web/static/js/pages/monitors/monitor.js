// One monitor: how it fares, and who comes and goes, told by the service as it happens.
import { ApiError, call, part, pause } from "../../api.js";
import { h, swap } from "../../dom.js";
import { icon } from "../../icons.js";
import { events } from "../../jobs.js";
import { go, link } from "../../router.js";
import { called, count, date, plural, similarity } from "../../text.js";
import { ask } from "../../ui/dialog.js";
import { backTo, head } from "../../ui/head.js";
import { badge } from "../../ui/meter.js";
import { empty, notice, problem } from "../../ui/problem.js";
import { toast } from "../../ui/toast.js";

const KINDS = { running: "match", connecting: "busy", reconnecting: "ambiguous", failed: "rejected", ended: "" };
const EVERY_MS = 2000;
const MOST = 100; // events that are drawn
const at = (id) => `/v1/monitors/${part(id)}`;
const time = new Intl.DateTimeFormat("en", { dateStyle: "short", timeStyle: "medium" });

export const titleOf = (monitor) => monitor.name || monitor.id;
export const stateBadge = (monitor) => badge(KINDS[monitor.state] ?? "", monitor.state);

export async function showMonitor(root, id, signal) {
  const back = backTo("All monitors", "monitors");
  swap(root, head("Monitors"), back);
  const monitor = await call("GET", at(id), { signal });
  const state = h("div", { class: "card" });
  const log = diary(monitor);
  swap(root, head(titleOf(monitor), monitor.source, h("button", {
    class: "button danger", type: "button", onclick: async () => {
      if (await removeMonitor(monitor)) go("monitors");
    },
  }, icon("trash"), "Remove")), back, h("div", { class: "columns" }, log.element, state));

  const draw = (now) => swap(state, h("div", { class: "row between" }, h("h2", {}, "State"), stateBadge(now)),
    now.detail ? notice(now.state === "failed" ? "warn" : "info", now.state === "failed" ? "It does not run" : "The connection is gone", h("span", { class: "break" }, now.detail)) : null,
    facts(now));
  draw(monitor);
  const wrong = (error) => {
    if (error.name !== "AbortError" && !signal.aborted) swap(state, problem(error));
  };
  look(id, draw, signal).catch(wrong);
  follow(id, log.add, draw, signal).then(() => {
    toast(`${titleOf(monitor)} was removed.`);
    go("monitors");
  }).catch(wrong);
}

async function look(id, draw, signal) {
  for (;;) {
    await pause(EVERY_MS, signal);
    if (document.hidden) continue;
    try {
      draw(await call("GET", at(id), { signal }));
    } catch (error) {
      if (error.status === 404) return; // `follow` says so
      if (error.name === "AbortError") throw error;
    }
  }
}

/** Its events from the first that is kept; ends when it is removed. Reconnects by itself. */
async function follow(id, onevent, onstate, signal) {
  let last = 0;
  for (let wait = 500; ; wait = Math.min(wait * 2, 10_000)) {
    try {
      const response = await call("GET", `${at(id)}/events`, { as: "response", signal, headers: { Accept: "text/event-stream", "Last-Event-ID": String(last) } });
      for await (const told of events(response)) {
        wait = 500;
        if (told.event === "deleted") return;
        if (told.event === "monitor") onstate(JSON.parse(told.data));
        if (told.event === "presence") {
          last = Number(told.id);
          onevent(JSON.parse(told.data));
        }
      }
    } catch (error) {
      if (signal.aborted || error.name === "AbortError") throw error;
      if (error.status === 404) return;
      if (error instanceof ApiError && error.status >= 400 && error.status < 500) throw error;
    }
    await pause(wait, signal);
  }
}

function facts(now) {
  const row = (name, value) => [h("dt", {}, name), h("dd", {}, value)];
  const sent = now.deliveries;
  return [
    h("dl", { class: "facts" },
      row("Gallery", h("a", { href: link("gallery", now.gallery, "people") }, now.gallery)),
      row("Frames", `${count(now.frames)}, at most ${now.rate} a second`),
      row("Last frame", now.last_frame_at ? time.format(new Date(now.last_frame_at)) : "none yet"),
      row("Events", count(now.events)),
      row("Reconnects", count(now.reconnects)),
      row("Strangers", now.strangers ? "are told too" : "are left out"),
      row("Watched since", date(now.created_at))),
    now.webhook ? [h("h3", {}, "Webhook"), h("dl", { class: "facts" },
      row("Address", h("code", {}, now.webhook.url)),
      row("Delivered", count(sent.delivered)), row("Waiting", count(sent.waiting)), row("Tried again", plural(sent.retries, "time")),
      row("Given up", count(sent.dead)), sent.last_error ? row("Last error", sent.last_error) : null)] : null,
    h("p", { class: "small muted" }, "Counted since the service started."),
  ];
}

/** The list of who came and went, the newest first; each event is also read out. */
function diary(monitor) {
  const body = h("tbody");
  const table = h("table", {}, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Who"), h("th", { scope: "col" }, "What"),
    h("th", { scope: "col", class: "right" }, "Similarity"), h("th", { scope: "col" }, "When"))), body);
  const nobody = empty("monitors", "Nobody yet", h("span", {}, "Whoever comes or goes is listed here at once."));
  const place = h("div", {}, nobody);
  const said = h("p", { class: "visually-hidden", role: "status" });
  return {
    element: h("section", { class: "card", "aria-label": "Who comes and goes" }, h("h2", {}, "Who comes and goes"), place, said),
    add(event) {
      if (nobody.isConnected) swap(place, table);
      const who = event.identity ? called(event.identity) : "Somebody unknown";
      body.prepend(h("tr", { data: { event: event.event } },
        h("td", { class: "break" }, event.identity
          ? h("a", { href: link("gallery", monitor.gallery, "people", event.identity.id) }, h("strong", {}, who)) : badge("unknown", "unknown")),
        h("td", {}, event.event), h("td", { class: "right" }, similarity(event.similarity)),
        h("td", {}, time.format(new Date(event.at)))));
      while (body.childElementCount > MOST) body.lastElementChild.remove();
      said.textContent = `${who} ${event.event}`;
    },
  };
}

/** Remove a monitor after asking; what came of it, or undefined. */
export function removeMonitor(monitor) {
  return ask({
    title: `Remove ${titleOf(monitor)}?`,
    action: "Remove",
    danger: true,
    body: h("p", { class: "break" }, "The service stops watching it",
      monitor.webhook ? ", and events that its webhook did not take yet are dropped." : "."),
    work: () => call("DELETE", at(monitor.id)),
  });
}
