// The playground: clicks go to the service, and the lists that come back are shown. What came too late is not shown.

import { ask, fromJson, send, storedKey } from "./api.js";
import { Clicks } from "./clicks.js";
import { twin } from "./compare.js";
import { find, listenToField } from "./find.js";
import { askForKey, at, later, listenAround, say, sayError } from "./frame.js";
import { note } from "./latency.js";
import { showLists } from "./lists.js";
import { inALine, showModels } from "./models.js";
import { make, walkByKeys } from "./rows.js";
import { showSimilar } from "./similar.js";
import { showStrip, walkStrip } from "./strip.js";

const clicks = new Clicks();
const on = { click, similar, remove, undo: () => remove(clicks.items.length - 1) };
let service = null;
let turn = 0; // only the list that was asked for last is shown

const look = () => find(on, service.limits.k);

function click(item) {
  at("similar").close();
  clicks.add(item);
  update();
}

function similar(item, model = "main") {
  showSimilar(item, model, click, service.limits.k);
}

function remove(place) {
  if (place < 0) return;
  clicks.remove(place);
  update();
}

// --- lists ---

function options() {
  const [column, value] = [at("column").value, at("value").value.trim()];
  return {
    k: Math.min(Math.max(1, Math.trunc(at("k").value) || 1), service.limits.k),
    exclude_seen: at("unseen-only").checked,
    details: true,
    ...(column && value ? { where: { [column]: [value] } } : {}),
  };
}

/** Show the list of the session as it is now. */
async function update() {
  const now = ++turn;
  showSession();
  at("lists").ariaBusy = "true";
  try {
    const answer = await clicks.list(options());
    if (now !== turn) return;
    note(answer.ms);
    const [other, fault] = await compared();
    if (now !== turn) return;
    showSession();
    showLists(clicks.items.length, answer, other, on);
    if (fault) sayError(fault, update);
    if (answer.model_version !== service.models[0].version) await describe();
  } catch (error) {
    if (now === turn) sayError(error, update);
  } finally {
    if (now === turn) at("lists").ariaBusy = "false";
  }
}

/** Return the second model's answer, null where none is wanted or it failed, and what went wrong. */
async function compared() {
  if (!at("compare").checked) return [null, null];
  try {
    return [await clicks.whole(options(), "compare"), null];
  } catch (error) {
    return [null, error];
  }
}

function showSession() {
  showStrip(at("strip"), clicks, on);
  at("undo").disabled = at("anew").disabled = !clicks.items.length;
}

// --- beginning ---

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
    await Promise.all([look(), update()]);
  } catch (error) {
    sayError(error, begin);
  }
}

/** Read what is served. */
async function describe() {
  service = await ask("GET", "v1/model");
  clicks.longest = service.limits.session_items;
  document.querySelector("main").classList.remove("waiting");
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

function listenToSession() {
  walkStrip(at("strip"), on);
  at("undo").addEventListener("click", on.undo);
  at("anew").addEventListener("click", () => {
    clicks.clear();
    update();
    at("query").focus({ preventScroll: true });
  });
}

function listenToOptions() {
  at("options").addEventListener("submit", event => event.preventDefault());
  for (const name of ["unseen-only", "compare"]) at(name).addEventListener("change", update);
  at("k").addEventListener("change", () => {
    at("k").value = options().k;
    update();
  });
  at("keep").addEventListener("change", () => {
    clicks.keeps = at("keep").checked;
    update();
  });
  at("value").addEventListener("input", later(update, 250));
  at("column").addEventListener("change", () => {
    at("value-label").hidden = !at("column").value;
    if (at("value").value.trim()) update();
    else if (at("column").value) at("value").focus();
  });
}

for (const list of ["found", "main-list", "compare-list", "similar-list"]) walkByKeys(at(list));
twin([at("main-list"), at("compare-list")]);
listenAround(begin);
listenToSession();
listenToOptions();
listenToField(look, click);
begin();
