// The active model, with its calibration where the service tells it.
import { call } from "./api.js";

export async function activeModel(signal) {
  const list = await call("GET", "/v1/models", { signal });
  return { list, model: list.models.find((each) => each.active) ?? null };
}

/** [{fmr, similarity}] of a model, or null. */
export function quantilesOf(model) {
  const quantiles = model?.calibration?.quantiles;
  return Array.isArray(quantiles) && quantiles.length >= 2 ? quantiles : null;
}
