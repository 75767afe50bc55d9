// Light or dark: the system's choice until the button says otherwise.
import { h, swap } from "../dom.js";
import { icon } from "../icons.js";

const system = matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (document.documentElement.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark";

export function themeButton() {
  const button = h("button", { class: "button quiet", type: "button", id: "theme" });
  const draw = () => swap(button, icon(isDark() ? "sun" : "moon"), h("span", {}, isDark() ? "Light theme" : "Dark theme"));
  button.addEventListener("click", () => {
    const next = isDark() ? "light" : "dark";
    document.documentElement.dataset.theme = next;
    try {
      localStorage.setItem("sphereid.theme", next);
    } catch {
      // for this visit only, then
    }
    draw();
  });
  system.addEventListener("change", draw);
  draw();
  return button;
}
