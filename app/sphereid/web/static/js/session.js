// The API key: in session storage only, so that it is gone when the tab is closed.

const KEY = "sphereid.key";
const listeners = new Set();
let memory = ""; // where session storage is blocked

export function key() {
  try {
    return sessionStorage.getItem(KEY) ?? memory;
  } catch {
    return memory;
  }
}

export function setKey(value) {
  memory = value;
  try {
    if (value) sessionStorage.setItem(KEY, value);
    else sessionStorage.removeItem(KEY);
  } catch {
    // memory holds it
  }
  for (const listener of listeners) listener();
}

/** Call `listener` whenever somebody signs in or out. */
export function onKeyChange(listener) {
  listeners.add(listener);
}
