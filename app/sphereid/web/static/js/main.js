// The console: sign-in, theme, navigation, and one page at a time.
import { ApiError, call, onUnauthorized } from "./api.js";
import { h, swap } from "./dom.js";
import { discover, has } from "./features.js";
import { icon } from "./icons.js";
import * as gallery from "./pages/gallery.js";
import * as identify from "./pages/identify.js";
import * as jobs from "./pages/jobs.js";
import * as live from "./pages/live.js";
import * as monitors from "./pages/monitors.js";
import * as system from "./pages/system.js";
import * as unknowns from "./pages/unknowns.js";
import * as verify from "./pages/verify.js";
import * as video from "./pages/video.js";
import { link, start } from "./router.js";
import { key, onKeyChange, setKey } from "./session.js";
import { askForKey } from "./ui/signin.js";
import { problem } from "./ui/problem.js";
import { themeButton } from "./ui/theme.js";

const ALL = [identify, verify, gallery, live, monitors, video, unknowns, jobs, system].map((module) => module.page);

const main = document.getElementById("main");

async function boot() {
  onUnauthorized(askForKey);
  document.getElementById("skip").addEventListener("click", (event) => {
    event.preventDefault();
    main.focus();
  });
  foot();
  await discover();
  const pages = ALL.filter((page) => page.needs.every(has));
  nav(pages);
  const router = start(pages, show);
  onKeyChange(() => foot());
  await router.turn();
}

function nav(pages) {
  swap(document.getElementById("nav"), h("ul", {}, pages.map((page) =>
    h("li", {}, h("a", { href: link(page.id), data: { page: page.id } }, icon(page.id), h("span", {}, page.title))))));
}

async function show(page, rest, signal, moveFocus) {
  document.title = `${page.title} · SphereID`;
  for (const a of document.querySelectorAll("#nav a")) {
    if (a.dataset.page === page.id) {
      a.setAttribute("aria-current", "page");
      a.scrollIntoView({ block: "nearest", inline: "nearest" });
    } else {
      a.removeAttribute("aria-current");
    }
  }
  const root = h("div", { class: "page", data: { page: page.id } });
  swap(main, root);
  let heading = null;
  const focus = () => {
    const now = root.querySelector("h1");
    if (!moveFocus || signal.aborted || !now || now === heading) return;
    if (heading && document.activeElement !== document.body) return; // drawn anew, but somebody went on from it
    heading = now;
    now.focus();
  };
  try {
    const drawn = page.show(root, { rest, signal });
    focus(); // what people do while the rest is loading must not be torn away from them
    await drawn;
  } catch (error) {
    if (error.name === "AbortError" || signal.aborted) return;
    swap(root, h("h1", { tabindex: -1 }, page.title), problem(error));
    if (!(error instanceof ApiError)) console.error(error);
  }
  focus();
}

function foot() {
  const dot = h("span", { class: "dot" });
  const words = h("span", {}, "Checking…");
  const signed = key() !== "";
  swap(document.getElementById("side-foot"),
    h("div", { class: "status", id: "status" }, dot, words),
    themeButton(),
    h("button", {
      class: "button quiet", type: "button", id: "sign-in",
      onclick: async () => {
        if (signed) {
          setKey("");
          location.reload();
        } else if (await askForKey(false)) {
          location.reload();
        }
      },
    }, icon("key"), h("span", {}, signed ? "Sign out" : "Sign in")));
  watchHealth(dot, words);
}

let healthTimer = 0;
function watchHealth(dot, words) {
  clearInterval(healthTimer);
  const look = async () => {
    if (document.hidden) return;
    try {
      await call("GET", "/readyz");
      dot.className = "dot good";
      words.textContent = "Ready";
    } catch (error) {
      dot.className = "dot bad";
      words.textContent = error.status ? "Not ready" : "Not reachable";
    }
  };
  look();
  healthTimer = setInterval(look, 15_000);
}

addEventListener("unhandledrejection", (event) => {
  if (event.reason?.name === "AbortError") event.preventDefault();
});
// A file dropped beside a drop zone must not replace the console.
for (const name of ["dragover", "drop"]) addEventListener(name, (event) => event.preventDefault());

boot();
