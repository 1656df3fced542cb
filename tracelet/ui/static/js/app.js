// Shows the page that the address means, and what all pages share: links, keys, the theme.

import { empty, h, replace } from "./dom.js";
import { go } from "./state.js";
import { runsPage } from "./runs.js";
import { chartsPage } from "./charts.js";
import { runPage } from "./run.js";
import { comparePage } from "./compare.js";

const PAGES = { "/": runsPage, "/charts": chartsPage, "/run": runPage, "/compare": comparePage };
const TITLES = { "/": "Runs", "/charts": "Charts", "/run": "Run", "/compare": "Compare" };
const main = document.getElementById("page");
let leave = new AbortController();

async function show() {
  leave.abort();
  leave = new AbortController();
  const { signal } = leave;
  const path = location.pathname;
  document.title = `${TITLES[path] || "Tracelet"} – Tracelet`;
  document.getElementById("live").textContent = "";
  for (const anchor of document.querySelectorAll("[data-page]")) {
    if (anchor.dataset.page === path) anchor.setAttribute("aria-current", "page");
    else anchor.removeAttribute("aria-current");
  }
  main.setAttribute("aria-busy", "true");
  const place = h("div");
  try {
    await PAGES[path](place, signal);
  } catch (error) {
    if (signal.aborted) return;
    replace(place, empty("This can't be shown", error.message));
  }
  if (signal.aborted) return;
  replace(main, place);
  main.removeAttribute("aria-busy");
}

function toggleTheme() {
  const root = document.documentElement;
  root.dataset.theme = root.dataset.theme === "dark" ? "light" : "dark";
  localStorage.setItem("tracelet-theme", root.dataset.theme);
  dispatchEvent(new Event("tracelet-theme"));
}

document.addEventListener("click", (event) => {
  const anchor = event.target.closest("a");
  if (!anchor || event.button || event.metaKey || event.ctrlKey || event.shiftKey || anchor.hasAttribute("download")) return;
  const href = anchor.getAttribute("href");
  if (href && href.startsWith("/") && PAGES[new URL(href, location.href).pathname]) {
    event.preventDefault();
    go(href);
    main.focus({ preventScroll: true });
  }
});
document.addEventListener("click", (event) => {
  for (const open of document.querySelectorAll("details.menu[open]")) if (!open.contains(event.target)) open.open = false;
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") for (const open of document.querySelectorAll("details.menu[open]")) open.open = false;
  if (event.target.matches("input, select, textarea") || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "/") {
    event.preventDefault();
    document.querySelector("input[type=search]")?.focus();
  } else if (event.key === "t") toggleTheme();
});
document.getElementById("theme").addEventListener("click", toggleTheme);
addEventListener("popstate", show);
show();
