// Theme and keyboard shortcuts. Loaded in the head, so that the first paint has the right theme.
"use strict";
{
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const choice = () => localStorage.getItem("theme") || "auto";

  function paint() {
    root.dataset.bsTheme = choice() === "auto" ? (dark.matches ? "dark" : "light") : choice();
    for (const button of document.querySelectorAll("[data-set-theme]")) {
      button.setAttribute("aria-checked", String(button.dataset.setTheme === choice()));
    }
  }

  paint();
  dark.addEventListener("change", paint);
  document.addEventListener("DOMContentLoaded", () => {
    paint();
    const dock = document.getElementById("dock");
    if (dock) dock.open = localStorage.getItem("dock") === "open";
    dock?.addEventListener("htmx:beforeRequest", (event) => dock.open || event.preventDefault());
    dock?.addEventListener("toggle", () => localStorage.setItem("dock", dock.open ? "open" : "closed"));
  });
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-set-theme]");
    if (!button) return;
    localStorage.setItem("theme", button.dataset.setTheme);
    paint();
  });

  const enabled = () => localStorage.getItem("shortcuts") !== "off";
  const rows = () => [...document.querySelectorAll("[data-row] [data-row-link]")];
  const row = () => document.activeElement?.closest("[data-row]");

  function step(by) {
    const links = rows();
    const here = links.findIndex((link) => link.closest("[data-row]") === row());
    links[here < 0 ? (by > 0 ? 0 : links.length - 1) : Math.min(Math.max(here + by, 0), links.length - 1)]?.focus();
  }

  const keys = {
    "/": () => document.getElementById("search")?.focus(),
    "?": () => document.getElementById("shortcuts-help")?.click(),
    j: () => step(1),
    k: () => step(-1),
    x: () => row()?.querySelector("input[type=checkbox]")?.click(),
    ".": () => row()?.querySelector("button[data-menu]")?.click(),
    r: () => document.body.dispatchEvent(new Event("live:refresh")),
  };
  let going = 0;

  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest?.("input:not([type=checkbox]), textarea, select, [contenteditable]");
    const busy = document.querySelector("dialog[open], [popover]:popover-open");
    if (!enabled() || typing || busy || event.ctrlKey || event.metaKey || event.altKey) return;
    const link = Date.now() - going < 1500 && document.querySelector(`[data-go="${CSS.escape(event.key)}"]`);
    going = event.key === "g" && !link ? Date.now() : 0;
    const action = link ? () => link.click() : keys[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  });

  document.addEventListener("change", (event) => {
    if (event.target.id === "shortcuts-switch") localStorage.setItem("shortcuts", event.target.checked ? "on" : "off");
  });
  document.addEventListener("htmx:load", () => {
    const off = document.getElementById("shortcuts-switch");
    if (off) off.checked = enabled();
  });
}
