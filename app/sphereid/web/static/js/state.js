// What the pages share: the gallery that the operator works in.
import { at, call, collect } from "./api.js";

const KEY = "sphereid.gallery";
let chosen = read();

function read() {
  try {
    return sessionStorage.getItem(KEY) ?? "default";
  } catch {
    return "default";
  }
}

export function gallery() {
  return chosen;
}

export function chooseGallery(id) {
  chosen = id;
  try {
    sessionStorage.setItem(KEY, id);
  } catch {
    // kept until the page is closed
  }
}

/** All galleries; when the chosen one is gone, `default` or the first takes its place. */
export async function galleries(signal) {
  const all = await collect(at.galleries, {}, 1000, signal);
  if (!all.some((each) => each.id === chosen)) {
    chooseGallery(all.find((each) => each.id === "default")?.id ?? all[0]?.id ?? "default");
  }
  return all;
}

export const readGallery = (id, signal) => call("GET", at.gallery(id), { signal });
