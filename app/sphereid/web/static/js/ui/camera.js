// The webcam, asked for only when somebody wants it and switched off right after.
import { ApiError } from "../api.js";
import { h, swap } from "../dom.js";
import { ask } from "./dialog.js";
import { problem } from "./problem.js";

/** A MediaStream. Raises ApiError with words that help. */
export async function openCamera(constraints = {}) {
  if (!navigator.mediaDevices?.getUserMedia) {
    throw new ApiError({
      title: "The camera is not available here",
      detail: "Browsers lend the camera only to pages on localhost or HTTPS. Open the console through one of these.",
    });
  }
  try {
    return await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 1280 }, facingMode: "user", ...constraints }, audio: false });
  } catch (error) {
    const refused = error.name === "NotAllowedError";
    throw new ApiError({
      title: refused ? "The camera was refused" : "The camera cannot be used",
      detail: refused
        ? "Allow the camera for this page in the browser's address bar, then try again."
        : `The browser says: ${error.message || error.name}. Is a camera connected, and free?`,
    });
  }
}

export function closeCamera(stream) {
  for (const track of stream?.getTracks() ?? []) track.stop();
}

/** What a playing video shows now, as a JPEG. longest: of the longer side, in pixels. */
export async function snapshot(video, name = "camera.jpg", longest = 1920, quality = 0.92) {
  const scale = Math.min(1, longest / Math.max(video.videoWidth, video.videoHeight, 1));
  const canvas = document.createElement("canvas");
  canvas.width = Math.round(video.videoWidth * scale);
  canvas.height = Math.round(video.videoHeight * scale);
  canvas.getContext("2d").drawImage(video, 0, 0, canvas.width, canvas.height);
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", quality));
  if (!blob) throw new ApiError({ title: "The camera gave no picture", detail: "Wait until it shows something, then try again." });
  return new File([blob], name, { type: "image/jpeg" });
}

/** A dialog with the camera's picture; resolves to a File, or undefined. */
export async function takePicture() {
  const video = h("video", { playsInline: true, muted: true, "aria-label": "What the camera sees" });
  const place = h("div", { class: "stage" }, video);
  let stream;
  const asked = ask({
    title: "Take a picture",
    action: "Take the picture",
    body: place,
    work: () => snapshot(video),
  });
  try {
    stream = await openCamera();
    video.srcObject = stream;
    await video.play();
  } catch (error) {
    if (error.name !== "AbortError") swap(place, problem(error));
  }
  const file = await asked;
  closeCamera(stream);
  return file;
}
