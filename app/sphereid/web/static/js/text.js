// How numbers, dates and the service's codes read.

const two = new Intl.NumberFormat("en", { minimumFractionDigits: 2, maximumFractionDigits: 2 });
const three = new Intl.NumberFormat("en", { minimumFractionDigits: 3, maximumFractionDigits: 3 });
const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const when = new Intl.DateTimeFormat("en", { dateStyle: "medium", timeStyle: "short" });

/** A similarity, with a real minus sign. */
export const similarity = (value) => (value === null || value === undefined ? "–" : three.format(value).replace("-", "−"));
export const decimal = (value) => two.format(value).replace("-", "−");
export const count = (value) => whole.format(value);
/** A measured figure: four digits that count, very small ones as a power of ten. */
export function figure(value) {
  if (value === 0 || Math.abs(value) >= 1e-4) return Number(value.toPrecision(4)).toString();
  return value.toExponential(1).replace(/e-(\d+)/, (_, power) => ` × 10⁻${Array.from(power, (digit) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[digit]).join("")}`);
}

export const plural = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;

export function percent(share) {
  const value = share * 100;
  return `${value >= 10 ? Math.round(value) : Number(value.toPrecision(2))} %`;
}

export function milliseconds(ms) {
  if (ms >= 10_000) return `${(ms / 1000).toFixed(1)} s`;
  return ms >= 100 ? `${Math.round(ms)} ms` : `${ms.toFixed(1)} ms`;
}

export function bytes(n) {
  const units = ["bytes", "KiB", "MiB", "GiB"];
  let at = 0;
  while (n >= 1024 && at < units.length - 1) {
    n /= 1024;
    at += 1;
  }
  return `${at === 0 ? n : n.toFixed(n < 10 ? 1 : 0)} ${units[at]}`;
}

export function clock(seconds) {
  const s = Math.max(0, seconds);
  const rest = (s % 60).toFixed(1).padStart(4, "0");
  const minutes = Math.floor(s / 60);
  return minutes >= 60 ? `${Math.floor(minutes / 60)}:${String(minutes % 60).padStart(2, "0")}:${rest}` : `${minutes}:${rest}`;
}

export function date(iso) {
  const at = new Date(iso);
  return Number.isNaN(at.getTime()) ? String(iso) : when.format(at);
}

export const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1);

export function shorten(text, most = 28) {
  const letters = Array.from(text);
  return letters.length > most ? `${letters.slice(0, most - 1).join("")}…` : text;
}

/** What to call an identity: its name, or its id where it has none. */
export const called = (identity) => identity?.name || identity?.id || "nobody";

export const DECISIONS = { match: "match", unknown: "unknown", ambiguous: "ambiguous", rejected: "rejected" };

const QUALITY = {
  too_small: "too small",
  blurred: "blurred",
  extreme_pose: "turned too far",
  low_contrast: "low contrast",
  clipped: "cut off by the edge of the picture",
};
export const quality = (code) => QUALITY[code] ?? code.replaceAll("_", " ");

const REJECTED = {
  ...QUALITY,
  face_not_found: "no face was found",
  multiple_faces: "several faces were found",
  low_quality: "the face is not good enough",
  image_broken: "the file is damaged",
  image_empty: "the file is empty",
  image_unsupported: "the file is no picture of a known format",
  image_too_large: "the picture is too large",
};
export const rejection = (code) => REJECTED[code] ?? code.replaceAll("_", " ");

/** A threshold in words: where it comes from. rate: what the promise is called, FMR where two faces are compared. */
export function policy(threshold, rate = "FPIR") {
  if (threshold.policy !== "fpir") return "fixed";
  const target = threshold.target === null ? "" : ` ${percent(threshold.target)}`;
  return `${rate}${target}${threshold.extrapolated ? ", extrapolated" : ""}`;
}

/** Why a face was decided as it was, in a sentence. */
export function why(face) {
  const limit = face.threshold ? similarity(face.threshold.value) : "";
  const first = face.candidates?.[0];
  const near = first ? `${called(first.identity)} at ${similarity(first.similarity)}` : "";
  switch (face.reason) {
    case "above_threshold": {
      const runner = face.margins?.to_runner_up;
      const ahead = runner === null || runner === undefined ? "" : `, ${similarity(runner)} ahead of the runner-up`;
      return `Similar enough: ${similarity(face.similarity)} reaches the threshold ${limit}${ahead}.`;
    }
    case "below_threshold":
      return near && face.decision === "unknown" && face.candidates.length
        ? `Nobody is similar enough: the nearest is ${near}, the threshold is ${limit}.`
        : `Not similar enough: ${similarity(face.similarity)} stays below the threshold ${limit}.`;
    case "empty_gallery":
      return "Nobody is enrolled in this gallery yet.";
    case "runner_up_too_near":
      return `Two identities are too near to each other to choose: ${near}, the runner-up only ${similarity(face.margins?.to_runner_up)} behind.`;
    case "assigned_elsewhere":
      return "The nearest identity was given to another face of this picture that is more similar.";
    default:
      return face.decision === "rejected" ? `Not searched: the face is ${quality(face.reason)}.` : quality(face.reason);
  }
}
