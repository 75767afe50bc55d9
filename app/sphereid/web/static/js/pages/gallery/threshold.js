// The gallery's threshold policy, and what it means on the model's calibration curve.
import { at, call } from "../../api.js";
import { h, swap } from "../../dom.js";
import { activeModel, quantilesOf } from "../../models.js";
import { count, percent, plural, policy, similarity } from "../../text.js";
import { calibrationChart, preview } from "../../ui/chart.js";
import { field, radio } from "../../ui/dialog.js";
import { notice, problem } from "../../ui/problem.js";
import { toast } from "../../ui/toast.js";

export async function thresholdPart(root, { gallery, refresh, refill, signal }) {
  const { model } = await activeModel(signal);
  const quantiles = quantilesOf(model);
  let now = gallery;

  const fpir = now.policy.type === "fpir";
  const target = h("input", { name: "target", type: "number", min: 0.0001, max: 99, step: "any", value: String(fpir ? Number((now.policy.target * 100).toPrecision(6)) : 1) });
  const value = h("input", { name: "value", type: "number", min: -1, max: 1, step: 0.001, value: String(fpir ? Math.min(1, Number(now.threshold.value.toFixed(3))) : now.policy.value) });
  const margin = h("input", { name: "margin", type: "number", min: 0, max: 2, step: 0.005, value: String(now.ambiguity_margin) });
  const template = h("select", { name: "template" }, [
    ["best", "best: the most similar face of an identity"],
    ["mean", "mean: the average of its faces"],
    ["top_k_mean", "top three: the mean of its three most similar faces"],
  ].map(([key, text]) => h("option", { value: key, selected: key === now.template }, text)));
  const outlook = h("p", { class: "small muted", role: "status", id: "outlook" });
  const wrong = h("div");
  const byTarget = field("Strangers who may get a name, in %", target, "False positive identification rate (FPIR). The threshold follows from it and the number of enrolled faces.");
  const byValue = field("Similarity", value, "A face at this similarity or above is a match, however large the gallery grows.");
  const chart = h("div");
  const effective = h("div");

  const type = () => form.elements.type.value;
  const form = h("form", { class: "card" },
    h("h2", {}, "Policy"),
    h("fieldset", {}, h("legend", {}, "The threshold is"),
      radio("found from a promise (FPIR)", { name: "type", value: "fpir", checked: fpir }),
      radio("a fixed similarity (cosine)", { name: "type", value: "cosine", checked: !fpir })),
    byTarget, byValue, outlook,
    field("Ambiguity margin", margin, "A match whose runner-up is nearer than this is “ambiguous”. 0 switches it off."),
    field("Template", template, "How the faces of an identity are compared with a new one."),
    wrong,
    h("div", {}, h("button", { class: "button primary", type: "submit" }, "Save the policy")));

  function draw() {
    const warning = now.policy.type === "fpir" && now.threshold.policy !== "fpir"
      ? notice("warn", "The promise can't be kept", h("span", {}, "The model brings no calibration, so a fixed threshold is used. Calibrate the model, or set a similarity yourself."))
      : now.threshold.value > 1
        ? notice("warn", "No similarity keeps this promise", h("span", {}, `With ${plural(now.faces, "face")} the target is too strict for this model: nobody will be named. Choose a larger share.`))
        : now.threshold.extrapolated
          ? notice("warn", "The threshold is extrapolated", h("span", {}, "It lies beyond the impostor scores that were measured; the tail was fitted."))
          : null;
    swap(effective, warning);
    effective.hidden = warning === null;
    const mark = { value: now.threshold.value, label: `threshold ${similarity(now.threshold.value)}` };
    swap(chart, quantiles
      ? calibrationChart(quantiles, { marks: [mark], pairs: model.calibration.pairs, protocol: model.calibration.protocol })
      : notice("info", "No calibration curve", h("span", {}, "The model's manifest holds no impostor scores.")));
    foresee();
  }

  function foresee() {
    const byPromise = type() === "fpir";
    byTarget.hidden = !byPromise;
    byValue.hidden = byPromise;
    target.disabled = !byPromise;
    value.disabled = byPromise;
    outlook.textContent = byPromise && target.validity.valid && target.value ? promise(Number(target.value) / 100) : "";
  }

  function promise(share) {
    if (!quantiles) return "";
    const faces = Math.max(now.faces, 1);
    const found = preview(quantiles, share, faces);
    const rate = `With ${plural(faces, "face")}, ${percent(share)} asks for a false match rate of ${found.rate.toPrecision(2)} a comparison: `;
    return rate + (found.measured ? `a threshold of ${similarity(found.value)}.` : `beyond the measured curve, above ${similarity(found.value)}; the service extrapolates.`);
  }

  form.addEventListener("input", foresee);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    swap(wrong);
    const rule = type() === "fpir" ? { type: "fpir", target: Number(target.value) / 100 } : { type: "cosine", value: Number(value.value) };
    try {
      await call("PATCH", at.gallery(gallery.id), { json: { policy: rule, ambiguity_margin: Number(margin.value), template: template.value } });
      now = await refresh();
      await refill();
      draw();
      toast(`Saved. The threshold is ${similarity(now.threshold.value)} (${policy(now.threshold)}).`);
    } catch (error) {
      swap(wrong, problem(error));
    }
  });

  swap(root, effective, h("div", { class: "halves" }, form,
    h("section", { class: "card", "aria-label": "Calibration" }, h("h2", {}, "Calibration"),
      h("p", { class: "muted small" }, `How often two different people reach a similarity, by the model ${model?.name ?? ""}. A larger gallery makes more comparisons (now ${count(now.faces)} a face), so the same promise needs a higher threshold.`),
      chart)));
  draw();
}
