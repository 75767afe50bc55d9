// The live WebSocket: a frame out, an answer in, one at a time.
import { ApiError, at } from "./api.js";
import { key } from "./session.js";

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
    const end = (event) => {
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
        socket.send(blob);
      }),
      close: () => socket.close(),
    }));
    socket.addEventListener("message", (event) => {
      waiting?.done(JSON.parse(event.data));
      waiting = null;
    });
    socket.addEventListener("close", end);
    signal.addEventListener("abort", () => {
      waiting?.reject(new DOMException("stopped", "AbortError"));
      socket.close();
    }, { once: true });
  });
}

function base64url(text) {
  return btoa(text).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}
