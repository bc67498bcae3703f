// Keeps a page up to date: replaces the fragments that the server sends, shows times in the
// browser's zone, counts seconds down, and says when there is no connection.
"use strict";

const SILENT_MS = 15000; // three pings of the hub
const main = document.getElementById("main");
const status = document.getElementById("connection");
let source = null;
let lastEvent = Date.now();
let ahead = (main.dataset.now || Date.now()) - Date.now(); // of the server's clock, in ms

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
const day = new Intl.DateTimeFormat(undefined, { year: "numeric", month: "2-digit", day: "2-digit" });

// <time datetime>: today the time of day, else date and time; the title keeps UTC.
function showTimes(root) {
  for (const each of root.querySelectorAll("time[datetime]")) {
    const at = new Date(each.dateTime);
    const today = at.toDateString() === new Date().toDateString();
    const text = (today ? "" : day.format(at) + " ") + clock.format(at);
    if (each.textContent !== text) each.textContent = text;
  }
}

// <span data-until="UNIX ms"> and <span data-since="UNIX ms">, by the server's clock.
function count() {
  for (const each of document.querySelectorAll("[data-until], [data-since]")) {
    const { until, since } = each.dataset;
    const now = Date.now() + ahead;
    const text = until ? "in " + lasting(until - now) : "for " + lasting(now - since);
    if (each.textContent !== text) each.textContent = text;
  }
}

function lasting(ms) {
  const s = Math.max(0, Math.round(ms / 1000));
  if (s < 120) return s + " s";
  if (s < 7200) return Math.floor(s / 60) + " min";
  return s < 172800 ? Math.floor(s / 3600) + " h" : Math.floor(s / 86400) + " d";
}

const FOCUSABLE = "a, button, input, select, summary, [tabindex]";

function replace(id, html) {
  const old = document.getElementById(id);
  if (!old) return;
  const holder = document.createElement("template");
  holder.innerHTML = html;
  const made = holder.content.firstElementChild;
  for (const open of old.querySelectorAll("details[open][id]")) {
    const same = holder.content.getElementById(open.id);
    if (same) same.open = true;
  }
  const focused = [old, ...old.querySelectorAll(FOCUSABLE)].indexOf(document.activeElement);
  const named = document.activeElement.id;
  showTimes(holder.content);
  old.replaceWith(made);
  if (focused >= 0) {
    const same = named && document.getElementById(named);
    (same || [made, ...made.querySelectorAll(FOCUSABLE)][focused])?.focus({ preventScroll: true });
  }
  made.dispatchEvent(new CustomEvent("live:replaced", { bubbles: true }));
}

function say(text) {
  if (status.textContent !== text) status.textContent = text;
  status.hidden = !text;
  document.body.classList.toggle("stale", Boolean(text));
}

function sayLost() {
  say("No connection since " + clock.format(new Date(lastEvent)) + ". The figures are of that time.");
}

function receive(event, act) {
  lastEvent = Date.now();
  main.dataset.version = event.lastEventId;
  act(JSON.parse(event.data));
}

function connect() {
  source?.close();
  const url = new URL(main.dataset.stream, location.href);
  url.searchParams.set("version", main.dataset.version);
  source = new EventSource(url);
  source.addEventListener("changes", (event) => receive(event, (data) => {
    for (const [id, html] of Object.entries(data.fragments)) replace(id, html);
    count();
    say("");
  }));
  source.addEventListener("ping", (event) => receive(event, (data) => {
    ahead = data.now * 1000 - Date.now();
    if (!data.trouble) say("");
  }));
  source.addEventListener("trouble", (event) => receive(event, (data) => {
    say(data.text && "No new figures: " + data.text);
  }));
  source.addEventListener("goodbye", () => location.reload());
  source.onerror = sayLost;
}

// The server refused the stream: without a session it leads every page to the login.
async function connectAgain() {
  try {
    const answer = await fetch(location.href, { method: "HEAD", redirect: "manual" });
    if (answer.type === "opaqueredirect") location.reload();
    else connect();
  } catch {
    sayLost();
  }
}

showTimes(document);
count();
setInterval(count, 1000);
if (main.dataset.stream) {
  connect();
  setInterval(() => {
    if (Date.now() - lastEvent > SILENT_MS) sayLost();
    if (source.readyState === EventSource.CLOSED) connectAgain();
  }, 3000);
  addEventListener("pagehide", () => source.close());
  addEventListener("pageshow", (event) => { if (event.persisted) connect(); });
}
