// The live WebSocket: a frame out, an answer in, one at a time.
import { ApiError, at } from "./api.js";
import { key } from "./session.js";

const PATIENCE_MS = 60_000; // with an answer; a service that is that slow, or a line that is dead, is asked anew

/**
 * Connect to a gallery's stream: {ask(blob) → answer, close()}. Resolves to null where the service has no stream,
 * or none free for us; the caller then asks with single pictures.
 */
export function openStream(gallery, signal) {
  return new Promise((resolve) => {
    const address = new URL(`${at.gallery(gallery)}/stream`, location.href);
    address.protocol = address.protocol === "https:" ? "wss:" : "ws:";
    // A browser can't set headers on a WebSocket; the key travels in the list of subprotocols.
    const socket = new WebSocket(address, key() ? ["sphereid", `sphereid.key.${base64url(key())}`] : ["sphereid"]);
    let waiting = null;
    let over = null;
    let patience = 0;
    const end = (event) => {
      clearTimeout(patience);
      socket.close();
      over = new ApiError({ title: "The live connection ended", detail: event.reason || "The service closed it, or the network is down.", code: "closed" });
      waiting?.reject(over);
      resolve(null);
    };
    socket.addEventListener("open", () => resolve({
      ask: (blob) => new Promise((done, reject) => {
        if (over) {
          reject(over);
          return;
        }
        waiting = { done, reject };
        patience = setTimeout(() => end({ reason: "No answer came." }), PATIENCE_MS);
        socket.send(blob);
      }),
      close: () => socket.close(),
    }));
    socket.addEventListener("message", (event) => {
      clearTimeout(patience);
      waiting?.done(JSON.parse(event.data));
      waiting = null;
    });
    socket.addEventListener("close", end);
    signal.addEventListener("abort", () => {
      clearTimeout(patience);
      waiting?.reject(new DOMException("stopped", "AbortError"));
      socket.close();
    }, { once: true });
  });
}

function base64url(text) {
  return btoa(text).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}
