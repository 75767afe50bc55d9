// The sign-in dialog. The key stays in this tab's session storage and goes nowhere but into the Authorization header.
import { h } from "../dom.js";
import { setKey } from "../session.js";
import { ask, field } from "./dialog.js";

let open = null;

/** Resolves to true once a key was entered. Calls made while the dialog is open share it. */
export function askForKey(wrong) {
  open ??= ask({
    title: "Sign in",
    action: "Sign in",
    body: h("div", { class: "stack" },
      h("p", {}, wrong
        ? "The service did not accept this key. Check it, or ask whoever runs the service for another."
        : "This service asks for an API key. It is kept until this tab is closed, and in no other place."),
      field("API key", h("input", { name: "key", type: "password", required: true, autocomplete: "off", spellcheck: "false" }))),
    work: async (values) => {
      setKey(String(values.get("key")).trim());
      return true;
    },
  }).then((answer) => {
    open = null;
    return answer === true;
  });
  return open;
}
