// Elements from plain data. Whatever comes from the server enters as text nodes or attributes, never as markup.

const SVG = "http://www.w3.org/2000/svg";

/** `h("p", {class: "muted", onclick: f}, "text", child)`: an HTML element. */
export function h(tag, props = {}, ...children) {
  return fill(document.createElement(tag), props, children);
}

/** The same for SVG. */
export function svg(tag, props = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), props, children);
}

const PROPERTIES = new Set(["value", "checked", "disabled", "hidden", "multiple", "selected", "required", "open", "muted",
  "autofocus", "webkitdirectory", "playsInline", "controls", "indeterminate"]);

function fill(element, props, children) {
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === undefined || value === null || value === false) {
      if (PROPERTIES.has(name) && value === false) element[name] = false;
      continue;
    }
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "data") Object.assign(element.dataset, value);
    else if (name === "css") for (const [key, v] of Object.entries(value)) element.style.setProperty(key, v);
    else if (PROPERTIES.has(name) && name in element) element[name] = value;
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  append(element, children);
  return element;
}

function append(element, children) {
  for (const child of children) {
    if (child === null || child === undefined || child === false || child === true) continue;
    if (Array.isArray(child)) append(element, child);
    else element.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
}

/** Put `children` in the place of what `element` holds. */
export function swap(element, ...children) {
  element.replaceChildren();
  append(element, children);
  return element;
}

let serial = 0;
/** An id that no other element has, to tie labels to fields. */
export function uid(prefix = "id") {
  serial += 1;
  return `${prefix}-${serial}`;
}
