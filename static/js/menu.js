// Menus: one native popover, filled by the server when it opens, so that what it offers is true at that moment.
// Also the selection of rows, which the Tasks menu acts on.

const menu = document.getElementById("menu");
let opener = null;

function place(box, x, y) {
  const left = Math.min(x, innerWidth - box.offsetWidth - 8);
  const below = y + box.offsetHeight + 8 < innerHeight;
  box.style.left = `${Math.max(left, 8)}px`;
  box.style.top = `${Math.max(below ? y : innerHeight - box.offsetHeight - 8, 8)}px`;
}

function address(holder) {
  const url = new URL(holder.dataset.menu, location.href);
  const form = holder.dataset.menuWith && document.querySelector(holder.dataset.menuWith);
  if (form) for (const [name, value] of new FormData(form)) url.searchParams.append(name, value);
  return url.pathname + url.search;
}

async function open(holder, x, y) {
  if (menu.matches(":popover-open")) menu.hidePopover();
  opener = document.activeElement === document.body ? holder.querySelector("a, button") : document.activeElement;
  await htmx.ajax("GET", address(holder), { target: menu, swap: "innerHTML", source: menu }).catch(() => menu.replaceChildren());
  if (!menu.children.length) return;
  menu.showPopover();
  place(menu, x, y);
  items(menu)[0]?.focus();
}

function openAt(element) {
  const button = element.matches("button[data-menu]") ? element : element.closest("[data-menu]").querySelector("button[data-menu]");
  const box = (button ?? element).getBoundingClientRect();
  open(element.closest("[data-menu]"), box.left, box.bottom + 4);
}

const items = (box) => [...box.querySelectorAll("[role^=menuitem]")];

function move(box, key) {
  const all = items(box);
  const here = all.indexOf(document.activeElement);
  const to = { ArrowDown: here + 1, ArrowUp: here < 0 ? -1 : here - 1, Home: 0, End: -1 }[key];
  all.at(to % all.length)?.focus();
}

document.addEventListener("contextmenu", (event) => {
  const holder = event.target.closest("[data-menu]");
  if (menu.contains(event.target)) event.preventDefault();
  if (!holder || event.shiftKey || event.target.closest("input[type=text], input[type=search]")) return;
  event.preventDefault();
  open(holder, event.clientX, event.clientY);
});

document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-menu]");
  if (button) openAt(button);
  const choice = event.target.closest("[popover] [role^=menuitem]");
  if (choice && choice.getAttribute("aria-disabled") === "true") event.preventDefault();
  else if (choice) choice.closest("[popover]").hidePopover();
  const toggle = event.target.closest("[data-toggle]");
  if (toggle) {
    const shown = document.querySelector(toggle.dataset.toggle).classList.toggle("show");
    toggle.setAttribute("aria-expanded", String(shown));
  }
});

document.addEventListener("keydown", (event) => {
  const box = event.target.closest("[popover][role=menu]");
  if (box && ["ArrowDown", "ArrowUp", "Home", "End"].includes(event.key)) {
    event.preventDefault();
    move(box, event.key);
  } else if (box && event.key === "Tab") {
    box.hidePopover();
  } else if (box && event.key.length === 1 && event.key !== " ") {
    const all = items(box);
    const turned = [...all.slice(all.indexOf(document.activeElement) + 1), ...all];
    turned.find((item) => item.textContent.trim().toLowerCase().startsWith(event.key.toLowerCase()))?.focus();
  } else if (!box && (event.key === "ContextMenu" || (event.key === "F10" && event.shiftKey))) {
    const holder = event.target.closest("[data-menu]");
    if (!holder) return;
    event.preventDefault();
    openAt(event.target);
  }
});

menu.addEventListener("toggle", (event) => {
  if (event.newState === "closed" && !document.querySelector("dialog[open]")) opener?.focus();
});

document.addEventListener("toggle", (event) => {
  const box = event.target;
  if (!box.matches("[popover][role=menu]") || box === menu || event.newState !== "open") return;
  const button = document.querySelector(`[popovertarget="${box.id}"]`).getBoundingClientRect();
  place(box, button.right - box.offsetWidth, button.bottom + 4);
  items(box)[0]?.focus();
}, true);

// The selection of rows.
const boxes = () => [...document.querySelectorAll("[data-select]")];

function count() {
  const chosen = boxes().filter((box) => box.checked).length;
  const every = document.querySelector("[data-select-every]");
  const all = document.querySelector("[data-select-all]");
  if (!all) return;
  if (every && chosen < boxes().length) every.checked = false;
  all.checked = chosen > 0 && chosen === boxes().length;
  all.indeterminate = chosen > 0 && chosen < boxes().length;
  document.getElementById("selection").classList.toggle("d-none", chosen === 0);
  document.getElementById("selection-count").textContent = every?.checked ? every.value : chosen;
  document.getElementById("selection-every")?.classList.toggle("d-none", chosen === 0 || chosen < boxes().length);
}

document.addEventListener("change", (event) => {
  if (event.target.matches("[data-select-all]")) for (const box of boxes()) box.checked = event.target.checked;
  if (event.target.closest("[data-select], [data-select-all], [data-select-every]")) count();
});
document.addEventListener("htmx:afterSettle", count);

// A refreshed list keeps what was ticked, opened and typed.
Idiomorph.defaults.callbacks.beforeAttributeUpdated = (name, element) =>
  !(name === "checked" && element.matches("[data-keep], [data-select], [data-select-all], [data-select-every]")) &&
  !(name === "open" && element.matches("details, dialog")) &&
  !(name === "value" && element === document.activeElement);
