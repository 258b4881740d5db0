// Live updates. The server says what changed; a part is the same HTML as on the page. What is missed is read again.

const SILENCE = 25_000; // the server beats every 10 s
const STALE = 30_000;
const POLL = 15_000;
const badge = document.getElementById("live");
let socket = null;
let failures = 0;
let heard = Date.now();
const waiting = new Map();

const topics = () => [...new Set([...document.querySelectorAll("[data-topics]")].flatMap((e) => e.dataset.topics.split(" ")))].filter(Boolean).sort();

function address() {
  const url = new URL(badge.dataset.url, location.href);
  url.protocol = url.protocol.replace("http", "ws");
  for (const topic of topics()) url.searchParams.append("topic", topic);
  return url.href;
}

function announce(name) {
  clearTimeout(waiting.get(name));
  waiting.set(name, setTimeout(() => document.body.dispatchEvent(new Event(name)), 200));
}

const refresh = () => announce("live:refresh");

function show(state) {
  if (badge.dataset.state === state) return;
  badge.dataset.state = state;
  badge.textContent = badge.dataset[state];
}

function morph(html) {
  const box = document.createElement("template");
  box.innerHTML = html;
  for (const part of [...box.content.children].filter((each) => each.dataset.v)) {
    for (const old of document.querySelectorAll(`[id="${CSS.escape(part.id)}"]`)) {
      if (Number(part.dataset.v) < Number(old.dataset.v)) continue;
      if (part.dataset.sign !== old.dataset.sign) announce(part.dataset.event);
      for (const fresh of Idiomorph.morph(old, part.cloneNode(true))) if (fresh.nodeType === 1) htmx.process(fresh);
    }
  }
  tell();
}

// The answer to a click is made of the same parts.
document.addEventListener("htmx:afterRequest", (event) => {
  if (event.detail.xhr.getResponseHeader("X-Parts")) morph(event.detail.xhr.responseText);
});

function connect() {
  const mine = new WebSocket(address());
  const born = Date.now();
  mine.former = socket;
  mine.topics = topics().join();
  socket = mine;
  mine.onmessage = (event) => {
    const frame = JSON.parse(event.data);
    heard = Date.now();
    if (frame.hello) {
      retire(mine.former);
      for (const part of document.querySelectorAll("[data-v]")) part.removeAttribute("data-v");
      show("live");
      refresh();
    }
    if (frame.parts) morph(frame.parts);
    if (frame.refresh) refresh();
  };
  mine.onclose = (event) => lost(mine, event.code, Date.now() - born);
}

function retire(old) {
  if (!old) return;
  old.onmessage = old.onclose = null;
  old.close();
}

function lost(mine, code, lived) {
  if (mine !== socket) return;
  retire(mine);
  retire(mine.former);
  socket = null;
  show(code >= 4000 ? "stale" : "reconnecting");
  if (code >= 4000) return;
  failures = lived > 10_000 ? 0 : failures + 1;
  setTimeout(() => socket ?? connect(), Math.min(5000, 250 * 2 ** failures) * (0.75 + Math.random() / 4));
}

setInterval(() => {
  if (socket && Date.now() - heard > SILENCE) lost(socket, 1006, 0);
  if (badge.dataset.state !== "live" && Date.now() - heard > STALE) show("stale");
}, 2500);
setInterval(() => badge.dataset.state !== "live" && refresh(), POLL);

// A dialog brings its own topic: the new socket is greeted before the old one goes, so nothing falls between.
function retopic() {
  if (socket && socket.topics !== topics().join()) connect();
}
document.addEventListener("htmx:afterSettle", retopic);
document.body.addEventListener("live:topics", retopic);

// Times are written by the server in UTC and told here in the words and the zone of the reader.
const units = [["day", 86400], ["hour", 3600], ["minute", 60]];
const words = new Intl.RelativeTimeFormat(document.documentElement.lang, { numeric: "auto" });

function tell() {
  for (const time of document.querySelectorAll("time[datetime]")) {
    const when = new Date(time.dateTime);
    const ago = (when - Date.now()) / 1000;
    const unit = units.find(([, seconds]) => Math.abs(ago) >= seconds);
    time.title = when.toLocaleString();
    time.textContent = unit ? words.format(Math.trunc(ago / unit[1]), unit[0]) : words.format(0, "second");
  }
}
document.addEventListener("htmx:afterSwap", tell);
setInterval(tell, 30_000);
tell();
if (badge) connect();
