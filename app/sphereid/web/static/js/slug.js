// Ids from names, as the service wants them: letters, digits, `.`, `_`, `-`, at most 64.

export function slug(text) {
  const plain = text.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase()
    .replace(/[^a-z0-9._-]+/g, "-").replace(/^[^a-z0-9]+|[-.]+$/g, "").slice(0, 60);
  return plain || `id-${hash(text)}`;
}

/** The person that a file name speaks of: "Ada_Lovelace_0002.jpg" → "Ada Lovelace". */
export function nameOfFile(fileName) {
  const stem = fileName.replace(/\.[^.]*$/, "");
  return stem.replace(/[\s._-]*\(?\d+\)?$/, "").replace(/[_]+/g, " ").trim() || stem;
}

function hash(text) {
  let value = 2166136261;
  for (const letter of text) value = Math.imul(value ^ letter.codePointAt(0), 16777619);
  return (value >>> 0).toString(36);
}
