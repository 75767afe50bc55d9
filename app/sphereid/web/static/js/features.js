// Which routes this service has: pages whose routes are missing are not shown.
import { call } from "./api.js";

let known = new Set();
let complete = false;
let document = null;

/** Read the OpenAPI document. Where it is switched off, the pages of the core API are shown. */
export async function discover() {
  try {
    document = await call("GET", "/openapi.json");
    known = new Set(
      Object.entries(document.paths ?? {}).flatMap(([path, methods]) =>
        Object.keys(methods).map((method) => `${method.toUpperCase()} ${shape(path)}`)),
    );
    complete = true;
  } catch {
    complete = false;
  }
}

const CORE = new Set(["POST /v1/galleries/{}/identify", "POST /v1/verify", "GET /v1/galleries", "GET /v1/models"]);
const shape = (path) => path.replaceAll(/\{[^}]*\}/g, "{}");

/** True when the service answers `route`, written like "GET /v1/jobs/{}". */
export function has(route) {
  return complete ? known.has(route) : CORE.has(route);
}

/** What the OpenAPI document says about a path, or null. */
export function described() {
  return document;
}
