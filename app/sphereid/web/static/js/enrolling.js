// Enrollment calls that pages share.
import { ApiError, at, call, formOf, idempotencyKey, url } from "./api.js";
import { slug } from "./slug.js";

/** Enroll one picture. The same Idempotency-Key goes with every try, so a lost answer enrolls nothing twice. */
export function enroll(gallery, identity, file, { name, quality = "normal", face = "only", signal } = {}) {
  return call("POST", at.faces(gallery, identity), {
    form: formOf("images", file, { create: true, name, quality, face }),
    headers: { "Idempotency-Key": idempotencyKey() },
    patience: 20,
    signal,
  });
}

/** The identity of that name, or the id that a new one gets: {id, name, exists}. Raises where two share the name. */
export async function resolve(gallery, name, signal) {
  const wanted = name.trim();
  const found = await call("GET", url(at.identities(gallery), { name: wanted, limit: 100 }), { signal });
  const same = found.items.filter((each) => each.name === wanted);
  if (same.length > 1) {
    throw new ApiError({
      title: `${same.length} identities are called ${wanted}`,
      detail: "Open the right one in the gallery and add the picture there.",
    });
  }
  if (same.length) return { id: same[0].id, name: wanted, exists: true };
  return { id: await freeId(gallery, slug(wanted), signal), name: wanted, exists: false };
}

async function freeId(gallery, id, signal) {
  for (let n = 1; n < 50; n += 1) {
    const candidate = n === 1 ? id : `${id}-${n}`;
    try {
      await call("GET", at.identity(gallery, candidate), { signal });
    } catch (error) {
      if (error.status === 404) return candidate;
      throw error;
    }
  }
  throw new ApiError({ title: "No free id was found", detail: `Many identities have ids like ${id}; give another name.` });
}
