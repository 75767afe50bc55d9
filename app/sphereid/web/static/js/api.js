// The service's HTTP interface. Every failure becomes an ApiError that carries the problem document.
import { key } from "./session.js";

/** A failed call. title, detail, code and requestId are the service's own words (RFC 9457). */
export class ApiError extends Error {
  constructor({ status = 0, title, detail = "", code = "", requestId = "", errors = [], document = {} }) {
    super(title);
    Object.assign(this, { status, title, detail, code, requestId, errors, document });
  }
}

let askForKey = null;
/** main.js gives the dialog: `ask(wrongKey)` resolves to true once a key was entered. */
export function onUnauthorized(ask) {
  askForKey = ask;
}

/** One segment of a path. */
export const part = (text) => encodeURIComponent(text);

/** A URL below this origin with a query; members that are null, undefined or "" are left out. */
export function url(path, query = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== undefined && value !== null && value !== "");
  const search = new URLSearchParams(given).toString();
  return search ? `${path}?${search}` : path;
}

/**
 * Call the service. `json` or `form` is the body; `as` is "json", "text", "blob" or "response".
 * `patience`: how many times a 429 or 503 is waited for as Retry-After says.
 */
export async function call(method, path, options = {}) {
  const { json, form, headers = {}, signal, as = "json", patience = 0 } = options;
  const send = { method, headers: { Accept: "application/json", ...headers }, signal, cache: "no-store", credentials: "omit" };
  const used = key();
  if (used) send.headers.Authorization = `Bearer ${used}`;
  if (json !== undefined) {
    send.headers["Content-Type"] = "application/json";
    send.body = JSON.stringify(json);
  } else if (form) {
    send.body = form;
  }

  let response;
  try {
    response = await fetch(path, send);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError({
      title: "The service cannot be reached",
      detail: "It may be stopped, restarting, or the network is down. Nothing was lost; try again in a moment.",
      code: "unreachable",
    });
  }
  if (response.status === 401 && askForKey && (await signIn(used))) return call(method, path, options);
  if ((response.status === 503 || response.status === 429) && patience > 0) {
    await pause(retryAfter(response), signal);
    return call(method, path, { ...options, patience: patience - 1 });
  }
  if (!response.ok) throw await errorOf(response);
  if (as === "response") return response;
  if (response.status === 204) return null;
  return as === "json" ? response.json() : response[as]();
}

/** Several calls refused at the same time share one dialog. */
async function signIn(used) {
  if (used !== key()) return true; // somebody signed in meanwhile
  return askForKey(used !== "");
}

function retryAfter(response) {
  const seconds = Number(response.headers.get("Retry-After") ?? 1);
  return Math.min(Math.max(Number.isFinite(seconds) ? seconds : 1, 0.2), 30) * 1000;
}

export async function errorOf(response) {
  let document = {};
  try {
    document = await response.json();
  } catch {
    // a proxy's page, perhaps; the status must do
  }
  return new ApiError({
    status: response.status,
    title: document.title ?? `The service answered ${response.status}`,
    detail: document.detail ?? response.statusText,
    code: document.code ?? "",
    requestId: document.request_id ?? response.headers.get("X-Request-ID") ?? "",
    errors: Array.isArray(document.errors) ? document.errors : [],
    document,
  });
}

export function pause(ms, signal) {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(new DOMException("stopped", "AbortError"));
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop); // the Live page pauses ten times a second for hours
      resolve();
    }, ms);
    if (signal?.aborted) stop();
    else signal?.addEventListener("abort", stop, { once: true });
  });
}

/** multipart/form-data from files and plain fields; empty fields are left out. */
export function formOf(field, files, fields = {}) {
  const form = new FormData();
  for (const file of [files].flat()) form.append(field, file, file.name || "picture.jpg");
  for (const [name, value] of Object.entries(fields)) {
    if (value !== undefined && value !== null && value !== "") form.append(name, String(value));
  }
  return form;
}

/** All items of a paged list, at most `most`. */
export async function collect(path, query = {}, most = 1000, signal = undefined) {
  const items = [];
  let cursor = "";
  do {
    const page = await call("GET", url(path, { limit: Math.min(100, most - items.length), ...query, cursor }), { signal });
    items.push(...page.items);
    cursor = page.next_cursor ?? "";
  } while (cursor && items.length < most);
  return items;
}

/** A fresh Idempotency-Key. randomUUID is not there on plain HTTP beyond localhost. */
export function idempotencyKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (b) => b.toString(16).padStart(2, "0")).join("");
}

const g = (gallery) => `/v1/galleries/${part(gallery)}`;
const i = (gallery, identity) => `${g(gallery)}/identities/${part(identity)}`;

/** Where things are. */
export const at = {
  galleries: "/v1/galleries",
  gallery: g,
  identify: (gallery) => `${g(gallery)}/identify`,
  identities: (gallery) => `${g(gallery)}/identities`,
  identity: i,
  unknowns: (gallery) => `${g(gallery)}/unknowns`,
  merge: (gallery, identity) => `${i(gallery, identity)}/merge`,
  faces: (gallery, identity) => `${i(gallery, identity)}/faces`,
  portrait: (gallery, identity) => `${i(gallery, identity)}/picture`,
  face: (gallery, identity, face) => `${i(gallery, identity)}/faces/${part(face)}`,
  verifyIdentity: (gallery, identity) => `${i(gallery, identity)}/verify`,
};

/** Upload a form with progress: onprogress(sent, total) in bytes. Resolves to the JSON answer. */
export function upload(path, form, { headers = {}, onprogress = () => {}, signal } = {}) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest(); // fetch tells nothing of an upload's progress
    request.open("POST", path);
    request.setRequestHeader("Accept", "application/json");
    if (key()) request.setRequestHeader("Authorization", `Bearer ${key()}`);
    for (const [name, value] of Object.entries(headers)) request.setRequestHeader(name, value);
    request.upload.addEventListener("progress", (event) => onprogress(event.loaded, event.total));
    request.addEventListener("load", async () => {
      const response = new Response(request.responseText, { status: request.status, headers: { "Content-Type": "application/json" } });
      if (response.ok) resolve(await response.json());
      else reject(await errorOf(response));
    });
    request.addEventListener("error", () => reject(new ApiError({
      title: "The upload broke off",
      detail: "The service closed the connection, or the network is down. Nothing was kept; try again.",
      code: "unreachable",
    })));
    request.addEventListener("abort", () => reject(new DOMException("stopped", "AbortError")));
    signal?.addEventListener("abort", () => request.abort(), { once: true });
    request.send(form);
  });
}
