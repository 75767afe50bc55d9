// Where pictures come in: dropped, pasted, chosen, or taken with the camera.
import { h } from "../dom.js";
import { icon } from "../icons.js";
import { takePicture } from "./camera.js";

export const PICTURES = "image/jpeg,image/png,image/webp,image/bmp,image/tiff,image/gif";

const looksLikePicture = (file) =>
  file.type.startsWith("image/") || /\.(jpe?g|png|webp|bmp|tiff?|gif)$/i.test(file.name ?? "");

/** A button that opens the file chooser. */
export function chooser({ label, sign = "upload", primary = false, multiple = false, folder = false, accept = PICTURES, small = false, onfiles }) {
  const input = h("input", {
    type: "file", hidden: true, accept: folder ? null : accept, multiple, webkitdirectory: folder,
    onchange: () => {
      const files = [...input.files];
      input.value = "";
      if (files.length) onfiles(files);
    },
  });
  return h("span", {}, input, h("button", {
    class: `button${primary ? " primary" : ""}${small ? " small" : ""}`, type: "button", onclick: () => input.click(),
  }, icon(sign), label));
}

/** "Take a picture", where a camera can be reached from this page. */
export function cameraButton(onfile, { small = false } = {}) {
  return h("button", {
    class: `button${small ? " small" : ""}`, type: "button",
    onclick: async () => {
      const file = await takePicture();
      if (file) onfile(file);
    },
  }, icon("camera"), "Take a picture");
}

/** Let pictures be dropped on `element`. onfiles gets File objects, those of dropped folders with `.folder` set. */
export function droppable(element, onfiles) {
  let depth = 0;
  element.addEventListener("dragenter", () => {
    depth += 1;
    element.classList.add("over");
  });
  element.addEventListener("dragleave", () => {
    depth -= 1;
    if (depth <= 0) element.classList.remove("over");
  });
  element.addEventListener("dragover", (event) => event.preventDefault());
  element.addEventListener("drop", async (event) => {
    event.preventDefault();
    depth = 0;
    element.classList.remove("over");
    const files = await filesOf(event.dataTransfer);
    if (files.length) onfiles(files);
  });
  return element;
}

/** Hear pasted pictures as long as `signal` lives. */
export function pasteable(onfiles, signal) {
  addEventListener("paste", (event) => {
    if (document.querySelector("dialog[open]")) return;
    const files = [...(event.clipboardData?.files ?? [])].filter(looksLikePicture);
    if (files.length) {
      event.preventDefault();
      onfiles(files);
    }
  }, { signal });
}

async function filesOf(transfer) {
  const entries = [...(transfer?.items ?? [])].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.some((entry) => entry.isDirectory)) return [...(transfer?.files ?? [])];
  const found = [];
  for (const entry of entries) await walk(entry, [], found);
  return found;
}

async function walk(entry, folders, found) {
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
    file.folder = folders.at(-1) ?? "";
    found.push(file);
    return;
  }
  const reader = entry.createReader();
  for (;;) {
    const batch = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!batch.length) return;
    for (const inner of batch) await walk(inner, [...folders, entry.name], found);
  }
}

/** The folder that a file was chosen or dropped in, or "". */
export function folderOf(file) {
  return file.folder ?? (file.webkitRelativePath ?? "").split("/").slice(0, -1).at(-1) ?? "";
}

export { looksLikePicture };
