// Jobs: watched over server-sent events, read by fetch because EventSource cannot send a key.
import { call, part, pause, url } from "./api.js";

export const FINAL = new Set(["succeeded", "failed", "canceled"]);
export const jobAt = (id) => `/v1/jobs/${part(id)}`;
export const resultAt = (id, artifact, more = {}) => url(`${jobAt(id)}/result`, { artifact, ...more });

/** Call `onjob` with the job now and at every change; ends when the job is over. Reconnects by itself. */
export async function watch(id, onjob, signal) {
  let wait = 500;
  for (;;) {
    try {
      const response = await call("GET", `${jobAt(id)}/events`, { as: "response", signal, headers: { Accept: "text/event-stream" } });
      for await (const { event, data } of events(response)) {
        if (event === "deleted") return null;
        if (event !== "job") continue;
        wait = 500;
        const job = JSON.parse(data);
        onjob(job);
        if (FINAL.has(job.state)) return job;
      }
    } catch (error) {
      if (signal.aborted || error.name === "AbortError" || (error.status >= 400 && error.status < 500)) throw error;
    }
    await pause(wait, signal);
    wait = Math.min(wait * 2, 10_000);
  }
}

/** The events of a text/event-stream answer. */
export async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    buffer += value.replaceAll("\r\n", "\n");
    const blocks = buffer.split("\n\n");
    buffer = blocks.pop();
    for (const block of blocks) {
      const fields = { event: "message", data: "" };
      for (const line of block.split("\n")) {
        const [, name, text] = /^(\w+): ?(.*)$/.exec(line) ?? [];
        if (name === "data") fields.data += (fields.data ? "\n" : "") + text;
        else if (name) fields[name] = text;
      }
      if (fields.data) yield fields;
    }
  }
}

/** A result as a Blob, with progress in bytes (total null where unknown). */
export async function fetchResult(id, artifact, { more, onprogress = () => {}, signal } = {}) {
  const response = await call("GET", resultAt(id, artifact, more), { as: "response", signal, headers: { Accept: "*/*" } });
  const total = Number(response.headers.get("Content-Length")) || null;
  const reader = response.body.getReader();
  const chunks = [];
  let got = 0;
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    chunks.push(value);
    got += value.length;
    onprogress(got, total);
  }
  return new Blob(chunks, { type: response.headers.get("Content-Type") ?? "" });
}

/** Hand a Blob to the browser's downloads. */
export function save(blob, name) {
  const address = URL.createObjectURL(blob);
  const link = Object.assign(document.createElement("a"), { href: address, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}
