// The playground: clicks go to the service, and the lists that come back are shown. What came too late is not shown.

import { ask, fromJson, inWords, send, storedKey, storeKey } from "./api.js";
import { Clicks } from "./clicks.js";
import { marker, overlapOf, showOverlap, twin } from "./compare.js";
import { note } from "./latency.js";
import { inALine, showModels } from "./models.js";
import { fill, make, moveOf, nameOf, plain, row, scoreOf, walkByKeys } from "./rows.js";
import { showStrip, walkStrip } from "./strip.js";

const at = id => document.getElementById(id);
const clicks = new Clicks();
const shown = { main: null, compare: null }; // ranks by id of the lists that are shown
const turns = { list: 0, find: 0, similar: 0 }; // only what was asked for last is shown
const on = { click, similar: showSimilar, remove, undo: () => remove(clicks.items.length - 1) };
let service = null;

// --- what to say ---

function say(text, kind = "", again = null) {
  at("status").textContent = text;
  at("status").className = kind;
  at("again").hidden = again === null;
  at("again").onclick = again;
}

function sayError(error, again) {
  if (error.status === 401) askForKey();
  say(inWords(error), "bad", error.status === 401 || error.status === 422 ? null : again);
}

function askForKey() {
  at("key").hidden = false;
  at("key-why").textContent = storedKey() ? "That key does not fit." : "This service wants one.";
  at("key-text").value = "";
  at("key-text").focus();
}

// --- lists ---

function options() {
  const k = Number(at("k").value);
  const limit = service.limits.k;
  const [column, value] = [at("column").value, at("value").value.trim()];
  return {
    k: Math.min(Math.max(1, Math.trunc(k) || 1), limit),
    exclude_seen: at("unseen-only").checked,
    details: true,
    ...(column && value ? { where: { [column]: [value] } } : {}),
  };
}

/** Show the list of the session as it is now. */
async function update() {
  const turn = ++turns.list;
  showStrip(at("strip"), clicks, on);
  at("undo").disabled = at("anew").disabled = !clicks.items.length;
  at("lists").ariaBusy = "true";
  try {
    const answer = await clicks.list(options());
    if (turn !== turns.list) return;
    note(answer.ms);
    const isCompared = at("compare").checked;
    const other = isCompared ? await clicks.whole(options(), "compare") : null;
    if (turn !== turns.list) return;
    showLists(answer, other);
    if (answer.model_version !== service.models[0].version) await describe();
  } catch (error) {
    if (turn === turns.list) sayError(error, update);
  } finally {
    if (turn === turns.list) at("lists").ariaBusy = "false";
  }
}

function showLists(answer, other) {
  showStrip(at("strip"), clicks, on);
  showList("main", answer.items, other && marker(other.items, "compare"));
  at("compare-column").hidden = at("overlap").hidden = at("main-name").hidden = other === null;
  if (other === null) shown.compare = null;
  else {
    showList("compare", other.items, marker(answer.items, "main"));
    showOverlap(at("overlap"), overlapOf(answer.items, other.items));
  }
  showNote(answer);
  const n = clicks.items.length;
  say(`${n === 0 ? "No click yet" : n === 1 ? "1 click" : `${n} clicks`}: ${answer.items.length} items recommended.`);
}

function showList(name, items, mark) {
  const before = shown[name];
  const scores = items.map(item => item.score);
  const [lowest, highest] = [Math.min(...scores), Math.max(...scores)];
  const rows = items.map((item, place) =>
    row(item, on, {
      rank: place + 1,
      end: [
        ...(mark ? [mark(item)] : []),
        moveOf(place + 1, before && before.get(String(item.id))),
        scoreOf(item.score, lowest, highest),
      ],
    }));
  fill(at(`${name}-list`), rows.length ? rows : [make("li", { className: "soft none" }, "No item is left by these options.")]);
  shown[name] = new Map(items.map((item, place) => [String(item.id), place + 1]));
}

function showNote({ popular, degraded }) {
  const n = clicks.items.length;
  const text = degraded
    ? "The session store is lost just now: this list is for the newest click alone. Let the page send the whole session instead, or click on."
    : popular && n
      ? "The model knows none of these items, so these are the ones clicked most in training."
      : popular
        ? "Nothing is clicked yet, so these are the items clicked most in training."
        : "";
  at("note").textContent = text;
  at("note").hidden = !text;
  at("note").classList.toggle("bad", Boolean(degraded));
}

// --- clicking ---

function click(item) {
  at("similar").close();
  clicks.add(item);
  update();
}

function remove(place) {
  if (place < 0) return;
  clicks.remove(place);
  update();
}

// --- finding ---

async function find() {
  const turn = ++turns.find;
  const query = at("query").value.trim();
  try {
    const { items } = await ask("GET", `v1/items?${new URLSearchParams({ query, limit: Math.min(30, service.limits.k) })}`);
    if (turn === turns.find) showFound(query, items);
  } catch (error) {
    if (turn === turns.find) sayError(error, find);
  }
}

function showFound(query, items) {
  const count = n => (n === 1 ? "clicked once" : `clicked ${plain(n)} times`);
  at("found-what").textContent = !query ? "Most clicked" : items.length ? "Found, most clicked first" : "Nothing is called that.";
  const rows = items.map(item => row(item, on, { detail: count(item.n_events) }));
  if (!items.length && query) rows.push(row({ id: idOf(query) }, on, { detail: "Click it all the same" }));
  fill(at("found"), rows);
}

/** Take a text for the id that it spells: a number where the ids shown are numbers. */
function idOf(text) {
  const isNumber = /^-?\d{1,18}$/.test(text) && [...(shown.main?.keys() ?? [])].every(id => /^-?\d+$/.test(id));
  return isNumber ? fromJson(String(BigInt(text))) : text;
}

// --- similar items ---

async function showSimilar(item) {
  const turn = ++turns.similar;
  const parameters = new URLSearchParams({ k: Math.min(20, service.limits.k), details: true });
  try {
    const answer = await ask("GET", `v1/items/${encodeURIComponent(item.id)}/similar?${parameters}`);
    if (turn !== turns.similar) return;
    const scores = answer.items.map(each => each.score);
    at("similar-head").textContent = `Like ${nameOf(item)}`;
    at("similar-what").textContent = answer.by === "cosine"
      ? "By the cosine of what the model learned of each item."
      : "By the scores after a session of this item alone.";
    fill(at("similar-list"), answer.items.map((each, place) =>
      row(each, on, { rank: place + 1, end: [scoreOf(each.score, Math.min(...scores), Math.max(...scores))] })));
    if (!at("similar").open) at("similar").showModal();
    at("similar").scrollTop = 0;
  } catch (error) {
    if (turn === turns.similar) sayError(error, () => showSimilar(item));
  }
}

// --- beginning ---

/** Read what is served. */
async function describe() {
  service = await ask("GET", "v1/model");
  clicks.longest = service.limits.session_items;
  at("serving").textContent = inALine(service.models[0]);
  at("k").max = service.limits.k;
  for (const model of service.models) at(`${model.name}-name`).textContent = `${model.name} · ${model.file}`;
  showModels(at("models"), service);
}

/** Offer what this service has. */
function offer() {
  const columns = service.catalogue?.columns ?? [];
  at("k").value = Math.min(20, service.limits.k);
  at("column").append(...columns.map(name => make("option", { value: name }, name)));
  at("filter").hidden = !columns.length;
  at("keep-option").hidden = !service.keeps_sessions;
  at("compare-option").hidden = service.models.length < 2;
  at("compare").checked = service.models.length > 1;
  clicks.keeps = service.keeps_sessions;
}

async function begin() {
  try {
    // openapi.json is open and says whether the rest is: so nobody without a key is refused first.
    const { text } = await send("GET", "openapi.json");
    if (fromJson(text).paths["/v1/model"].get.security && !storedKey()) {
      askForKey();
      say("This service wants an API key.");
      return;
    }
    const isFirst = service === null;
    await describe();
    if (isFirst) offer();
    at("key").hidden = true;
    await Promise.all([find(), update()]);
  } catch (error) {
    sayError(error, begin);
  }
}

function later(act, ms) {
  let timer;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(act, ms);
  };
}

function listen() {
  for (const list of ["found", "main-list", "compare-list", "similar-list"]) walkByKeys(at(list));
  walkStrip(at("strip"), on);
  twin([at("main-list"), at("compare-list")]);
  at("undo").addEventListener("click", on.undo);
  at("anew").addEventListener("click", () => {
    clicks.clear();
    update();
    at("query").focus({ preventScroll: true });
  });
  at("query").addEventListener("input", later(find, 120));
  at("query").addEventListener("keydown", event => {
    const first = at("found").querySelector(".click");
    if (event.key === "ArrowDown" && first) first.focus();
    else if (event.key === "Enter" && at("query").value.trim()) first?.click();
    else return;
    event.preventDefault();
  });
  for (const name of ["unseen-only", "compare", "k"]) at(name).addEventListener("change", update);
  at("value").addEventListener("input", later(update, 250));
  at("column").addEventListener("change", () => {
    at("value-label").hidden = !at("column").value;
    if (at("value").value.trim()) update();
    else if (at("column").value) at("value").focus();
  });
  at("keep").addEventListener("change", () => {
    clicks.keeps = at("keep").checked;
    update();
  });
  at("options").addEventListener("submit", event => event.preventDefault());
  at("key").addEventListener("submit", event => {
    event.preventDefault();
    storeKey(at("key-text").value.trim());
    begin();
  });
  at("help-open").addEventListener("click", () => at("help").showModal());
  for (const dialog of document.querySelectorAll("dialog")) {
    dialog.querySelector(".close").addEventListener("click", () => dialog.close());
    dialog.addEventListener("click", event => event.target === dialog && dialog.close());
  }
  document.addEventListener("keydown", event => {
    const isTyping = event.target.matches("input:not([type=checkbox]), select, textarea");
    if (isTyping || event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    if (event.key === "/") at("query").focus();
    else if (event.key === "?") at("help").showModal();
    else return;
    event.preventDefault();
  });
}

listen();
begin();
