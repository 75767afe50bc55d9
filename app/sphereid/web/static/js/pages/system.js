// System: the model, its calibration, the service's health, and how it is doing.
import { call, part, pause } from "../api.js";
import { h, swap } from "../dom.js";
import { described, has } from "../features.js";
import { icon } from "../icons.js";
import { activeModel, quantilesOf } from "../models.js";
import { parse, quantile, total } from "../prometheus.js";
import { gallery, readGallery } from "../state.js";
import { count, figure, milliseconds, plural, similarity } from "../text.js";
import { calibrationChart } from "../ui/chart.js";
import { head } from "../ui/head.js";
import { badge } from "../ui/meter.js";
import { loading, notice, problem } from "../ui/problem.js";

export const page = { id: "system", title: "System", needs: ["GET /v1/models"], show };

async function show(root, { signal }) {
  const health = h("dl", { class: "counts" });
  const model = h("section", { class: "card", "aria-label": "Model" }, loading());
  const curve = h("section", { class: "card", "aria-label": "Calibration" }, loading());
  const card = h("div");
  const figures = h("div");
  const settings = h("div");
  const traffic = h("section", { class: "card", "aria-label": "Traffic" }, loading());
  const stages = h("section", { class: "card", "aria-label": "Stages and decisions" });
  const refresh = h("button", { class: "button", type: "button", onclick: () => look() }, icon("refresh"), "Refresh");
  swap(root, head("System", "What runs here, and how it is doing.", refresh), health,
    h("div", { class: "halves" }, model, curve), figures, card, h("div", { class: "halves" }, traffic, stages), settings, about());

  async function look() {
    await Promise.all([
      drawHealth(health, signal),
      drawMetrics(traffic, stages, signal).catch((error) => error.name !== "AbortError" && swap(traffic, problem(error))),
    ]);
  }
  const models = activeModel(signal).then(async ({ list, model: active }) => {
    drawModel(model, list, active);
    drawFigures(figures, active);
    await Promise.all([drawCurve(curve, active, signal), drawCard(card, active, signal)]);
  });
  await Promise.all([models, look(), drawSettings(settings, signal)]);
  keep(look, signal);
}

async function keep(look, signal) {
  try {
    for (;;) {
      await pause(10_000, signal);
      if (!document.hidden) await look();
    }
  } catch {
    // the page was left
  }
}

async function probe(path, signal) {
  const begun = performance.now();
  try {
    const answer = await call("GET", path, { signal });
    return { good: true, text: answer.status, version: answer.version, ms: performance.now() - begun };
  } catch (error) {
    if (error.name === "AbortError") throw error;
    return { good: false, text: error.message, ms: performance.now() - begun };
  }
}

async function drawHealth(place, signal) {
  const [alive, ready] = await Promise.all([probe("/healthz", signal), probe("/readyz", signal)]);
  const state = (each) => [badge(each.good ? "match" : "rejected", each.text), h("small", {}, `answered in ${milliseconds(each.ms)}`)];
  swap(place, tile("Alive", state(alive)), tile("Ready", state(ready)), tile("Version", alive.version ?? "–"));
}

const tile = (name, value) => h("div", { class: "count" }, h("dt", {}, name), h("dd", {}, value));

function drawModel(place, list, active) {
  if (!active) {
    swap(place, h("h2", {}, "Model"), notice("warn", "No active model was named"));
    return;
  }
  swap(place,
    h("div", { class: "row between" }, h("h2", {}, "Model"), badge("busy", list.provider.replace("ExecutionProvider", ""))),
    h("dl", { class: "facts" },
      h("dt", {}, "Name"), h("dd", {}, h("strong", {}, active.name), ` ${active.version}`),
      h("dt", {}, "Contract"), h("dd", {}, h("code", {}, active.contract)),
      h("dt", {}, "Embedding"), h("dd", {}, `${active.embedding_size} numbers`),
      h("dt", {}, "Alignment"), h("dd", {}, active.template),
      h("dt", {}, "Training data"), h("dd", {}, active.training_data),
      h("dt", {}, "License"), h("dd", {}, active.license)),
    list.models.length > 1 ? modelTable(list.models) : null);
}

/** All models of the folder: each may be used for what its license allows. */
function modelTable(models) {
  return h("div", { class: "scroll-x", tabindex: 0, role: "region", "aria-label": "Models and licenses" }, h("table", {},
    h("thead", {}, h("tr", {}, ["In the models folder", "License"].map((name) => h("th", { scope: "col" }, name)))),
    h("tbody", {}, models.map((each) => h("tr", {},
      h("td", {}, each.active ? h("strong", {}, each.name) : each.name), h("td", {}, each.license))))));
}

/** What the manifest says was measured, each figure with the command that gives it. */
function drawFigures(place, active) {
  if (!active?.metrics.length) return;
  swap(place, h("details", { class: "card" }, h("summary", {}, `Measured (${plural(active.metrics.length, "figure")}, each with its command)`),
    h("div", { class: "scroll-x", tabindex: 0, role: "region", "aria-label": "Measured figures" }, h("table", { class: "figures" },
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Figure"), h("th", { scope: "col", class: "right" }, "Value"), h("th", { scope: "col" }, "Command"))),
      h("tbody", {}, active.metrics.map((metric) => h("tr", {},
        h("td", {}, metric.name), h("td", { class: "right" }, typeof metric.value === "number" ? figure(metric.value) : String(metric.value)),
        h("td", {}, h("code", {}, metric.command)))))))));
}

async function drawCurve(place, active, signal) {
  const quantiles = quantilesOf(active);
  let mark = [];
  try {
    const now = await readGallery(gallery(), signal);
    mark = [{ value: now.threshold.value, label: `${now.id}: ${similarity(now.threshold.value)}` }];
  } catch (error) {
    if (error.name === "AbortError") throw error;
  }
  swap(place, h("h2", {}, "Calibration"), quantiles
    ? calibrationChart(quantiles, { marks: mark, pairs: active.calibration.pairs, protocol: active.calibration.protocol })
    : notice("info", active?.calibrated ? "Calibrated" : "Not calibrated", h("span", {}, active?.calibrated
      ? "The service does not tell the curve."
      : "The manifest holds no impostor scores, so an FPIR policy falls back to a fixed threshold.")));
}

/** The model's card as it was written; Markdown reads well as it is. */
async function drawCard(place, active, signal) {
  if (!active || !has("GET /v1/models/{}/card")) return;
  try {
    const { text } = await call("GET", `/v1/models/${part(active.name)}/card`, { signal });
    swap(place, h("details", { class: "card" }, h("summary", {}, "Model card"),
      h("pre", { class: "page-text", tabindex: 0, role: "region", "aria-label": "Model card" }, text)));
  } catch (error) {
    if (error.name === "AbortError") throw error; // a model without a card has none to show
  }
}

async function drawSettings(place, signal) {
  if (!has("GET /v1/settings")) return;
  const { items } = await call("GET", "/v1/settings", { signal });
  const changed = items.filter((each) => each.value !== each.default);
  swap(place, h("details", { class: "card" }, h("summary", {}, `Settings (${plural(items.length, "setting")}, ${changed.length} not the default)`),
    h("div", { class: "scroll-x", tabindex: 0, role: "region", "aria-label": "Settings" }, h("table", {},
      h("thead", {}, h("tr", {}, ["Setting", "Value", "Default", "What it does"].map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", {}, items.map((each) => h("tr", {}, h("td", { class: "nowrap" }, h("code", {}, each.variable)),
        h("td", {}, each.value === each.default ? each.value : h("strong", {}, each.value)), h("td", { class: "muted" }, each.default), h("td", {}, each.description))))))));
}

async function drawMetrics(traffic, stages, signal) {
  const samples = parse(await call("GET", "/metrics", { as: "text", signal, headers: { Accept: "text/plain" } }));
  const routes = [...new Set(samples.filter((s) => s.name === "sphereid_requests_total").map((s) => s.labels.route))]
    .filter((route) => route.startsWith("/v1"))
    .map((route) => {
      const mine = (labels) => labels.route === route;
      return {
        route,
        requests: total(samples, "sphereid_requests_total", mine),
        errors: total(samples, "sphereid_requests_total", (l) => mine(l) && Number(l.status) >= 500),
        p50: quantile(samples, "sphereid_request_seconds", 0.5, mine),
        p95: quantile(samples, "sphereid_request_seconds", 0.95, mine),
      };
    })
    .sort((a, b) => b.requests - a.requests).slice(0, 10);
  const ms = (seconds) => (seconds === null ? "–" : milliseconds(seconds * 1000));
  swap(traffic, h("h2", {}, "Traffic since the start"), routes.length
    ? h("div", { class: "scroll-x", tabindex: 0, role: "region", "aria-label": "Requests by route" }, h("table", {},
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Route"), ["Requests", "5xx", "Median", "95 %"].map((n) => h("th", { scope: "col", class: "right" }, n)))),
      h("tbody", {}, routes.map((r) => h("tr", {}, h("td", {}, h("code", { class: "path" }, r.route.split(/(?=\/)/).map((step) => [h("wbr"), step]))), h("td", { class: "right" }, count(r.requests)),
        h("td", { class: "right" }, count(r.errors)), h("td", { class: "right nowrap" }, ms(r.p50)), h("td", { class: "right nowrap" }, ms(r.p95)))))))
    : h("p", { class: "muted" }, "No request yet."));

  const names = [...new Set(samples.filter((s) => s.name === "sphereid_stage_seconds_count").map((s) => s.labels.stage))];
  const decisions = samples.filter((s) => s.name === "sphereid_decisions_total");
  swap(stages, h("h2", {}, "Stages and decisions"),
    names.length ? h("div", { class: "scroll-x", tabindex: 0, role: "region", "aria-label": "Time by stage" }, h("table", {},
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Stage"), ["Median", "95 %"].map((n) => h("th", { scope: "col", class: "right" }, n)))),
      h("tbody", {}, names.map((name) => {
        const mine = (labels) => labels.stage === name;
        return h("tr", {}, h("td", {}, name), h("td", { class: "right" }, ms(quantile(samples, "sphereid_stage_seconds", 0.5, mine))),
          h("td", { class: "right" }, ms(quantile(samples, "sphereid_stage_seconds", 0.95, mine))));
      })))) : h("p", { class: "muted" }, "Nothing was measured yet."),
    h("dl", { class: "facts" },
      decisions.map((s) => [h("dt", {}, "Decided ", s.labels.outcome), h("dd", {}, count(s.value))]),
      h("dt", {}, "Faces found"), h("dd", {}, count(total(samples, "sphereid_faces_total"))),
      h("dt", {}, "Faces enrolled"), h("dd", {}, count(total(samples, "sphereid_enrolled_faces_total"))),
      h("dt", {}, "Active requests"), h("dd", {}, count(total(samples, "sphereid_requests_active"))),
      h("dt", {}, "Faces waiting"), h("dd", {}, count(total(samples, "sphereid_embed_queue_faces"))),
      h("dt", {}, "Stored"), h("dd", {}, `${plural(total(samples, "sphereid_gallery_faces"), "face")} in ${plural(total(samples, "sphereid_gallery_galleries"), "gallery", "galleries")}`)));
}

function about() {
  return described() ? h("p", { class: "small muted" }, "Programs use the same interface: ",
    h("a", { href: "/openapi.json" }, "OpenAPI document"), ".") : null;
}
