// The one dialog of a page, filled by htmx; and toasts.

const dialog = document.getElementById("dialog");
const body = document.getElementById("dialog-body");
const toasts = document.getElementById("toasts");

document.addEventListener("htmx:afterSwap", (event) => {
  if (event.detail.target !== body || event.detail.xhr.getResponseHeader("X-Parts")) return;
  if (body.children.length && !dialog.open) dialog.showModal();
  house();
  if (dialog.open && !dialog.contains(document.activeElement)) dialog.focus();
  body.querySelector("[autofocus]")?.focus();
});

dialog.addEventListener("close", () => {
  house();
  body.replaceChildren();
  document.body.dispatchEvent(new Event("live:topics"));
});

document.body.addEventListener("dialog:close", () => dialog.open && dialog.close());

document.addEventListener("click", (event) => {
  if (event.target.closest("[data-close]")) dialog.close();
  event.target.closest("[data-dismiss]")?.closest(".toast").remove();
});

// Behind an open dialog nothing can be read or dismissed.
function house() {
  const home = dialog.open ? dialog : document.body;
  if (toasts.parentNode !== home) home.append(toasts);
}

function select(tab) {
  for (const each of tab.parentElement.children) {
    each.setAttribute("aria-selected", String(each === tab));
    each.tabIndex = each === tab ? 0 : -1;
    document.getElementById(each.getAttribute("aria-controls")).hidden = each !== tab;
  }
  tab.focus();
}

document.addEventListener("click", (event) => event.target.matches("[role=tab]") && select(event.target));
document.addEventListener("keydown", (event) => {
  const to = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!to || !event.target.matches("[role=tab]")) return;
  const tabs = [...event.target.parentElement.children];
  select(tabs.at((tabs.indexOf(event.target) + to) % tabs.length));
});

// A good toast goes by itself; one that says no stays until it is dismissed.
const fade = () => toasts.querySelectorAll('[data-fades=""]').forEach((toast) => {
  toast.dataset.fades = "soon";
  setTimeout(() => toast.remove(), 8000);
});
new MutationObserver(() => (house(), fade())).observe(toasts, { childList: true });
fade();

const complain = (id) =>
  toasts.querySelector(`[data-about="${id}"]`) || toasts.append(document.getElementById(id).content.cloneNode(true));
const on = (name, act) => document.body.addEventListener(name, (event) => act(event.detail));

on("htmx:responseError", ({ xhr }) => complain(xhr.status === 403 ? "toast-refused" : "toast-error"));
for (const how of ["htmx:sendError", "htmx:timeout"]) // of refreshes nobody asked for the badge tells enough
  on(how, ({ requestConfig: { triggeringEvent: why } }) => why?.type.startsWith("live:") || complain("toast-unreachable"));

// htmx looks for the places of an answer in the tree of who asked: not in the page once a live update took it away.
on("htmx:beforeRequest", ({ elt }) => elt.addEventListener("htmx:beforeSwap", ({ detail }) => {
  if (elt.isConnected || !detail.xhr.getResponseHeader("X-Parts")) return;
  detail.shouldSwap = false;
  htmx.swap(document.body, detail.serverResponse, { swapStyle: "none" });
}, { once: true }));

// Questions of hx-confirm are asked by a dialog of our own, above the one that may be open.
const question = document.getElementById("question");

document.addEventListener("htmx:confirm", (event) => {
  if (!event.detail.question) return;
  event.preventDefault();
  question.querySelector("p").textContent = event.detail.question;
  question.querySelector("[value=yes]").textContent = event.detail.elt.dataset.yes;
  question.returnValue = "";
  question.onclose = () => question.returnValue === "yes" && event.detail.issueRequest(true);
  question.showModal();
});
