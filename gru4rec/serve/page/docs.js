// The interface as openapi.json describes it: each path with what it takes and answers, a curl line, and a try.

import { ask, inWords, storedKey, storeKey } from "./api.js";
import { make } from "./rows.js";
import { defaultOf, limitsOf, resolve, typeOf } from "./schema.js";
import { trial } from "./trial.js";

const at = id => document.getElementById(id);
const BODIES = { "/v1/recommend": { session: [], k: 5 }, "/v1/sessions/{session_id}/events": { item: 0, k: 5 } };
const VALUES = { session_id: "visitor-1", k: "5", limit: "5" };
let api = null;

const key = () => at("key-text").value.trim();

async function begin() {
  try {
    api = await ask("GET", "openapi.json");
  } catch (error) {
    at("status").textContent = inWords(error);
    at("status").className = "bad";
    return;
  }
  const found = Object.entries(api.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({ path, method: method.toUpperCase(), operation })),
  );
  at("about").textContent = `${api.info.description} Version ${api.info.version}.`;
  at("key").hidden = !found.some(each => each.operation.security);
  at("key-text").value = storedKey();
  await suggestItem(found);
  at("contents").append(
    make(
      "ul",
      {},
      ...found.map(each => make("li", {}, make("a", { href: `#${anchor(each)}` }, verb(each.method), each.path))),
    ),
  );
  at("paths").append(...found.map(section));
  at("status").textContent = "";
  if (location.hash) at(decodeURIComponent(location.hash.slice(1)))?.scrollIntoView();
}

/** Put an item of this service into the examples, where it may be asked for one. */
async function suggestItem(found) {
  const isLocked = found.find(each => each.path === "/v1/items")?.operation.security && !storedKey();
  if (isLocked) return;
  try {
    const [item] = (await ask("GET", "v1/items?limit=1")).items;
    if (!item) return;
    [VALUES.item_id, BODIES["/v1/recommend"].session, BODIES["/v1/sessions/{session_id}/events"].item] = [
      String(item.id),
      [item.id],
      item.id,
    ];
  } catch {
    /* examples without an item will do */
  }
}

const anchor = ({ method, path }) => `${method.toLowerCase()}${path.replace(/[^a-z0-9]+/gi, "-").replace(/-$/, "")}`;
const verb = method => make("span", { className: `verb ${method.toLowerCase()}` }, method);

function section(each) {
  const { path, method, operation } = each;
  const body = operation.requestBody?.content["application/json"].schema;
  return make(
    "section",
    { id: anchor(each), className: "card" },
    make("h2", {}, verb(method), make("code", {}, path)),
    make(
      "p",
      {},
      operation.description ?? operation.summary,
      operation.security
        ? make(
            "span",
            { className: "lock" },
            operation.security.some(kind => "admin_key" in kind) ? "admin key" : "API key",
          )
        : null,
    ),
    ...(operation.parameters ? [make("h3", {}, "Parameters"), parameters(operation.parameters)] : []),
    ...(body ? [make("h3", {}, "Body, JSON"), properties(body), eitherOf(body)] : []),
    make("h3", {}, "Answers"),
    answers(operation.responses),
    trial(api, each, { values: VALUES, body: body && (BODIES[path] ?? {}), key }),
  );
}

/** Make a table of rows of texts and elements; a column in which nothing stands is left out. */
function table(allHeads, allRows) {
  const isUsed = allHeads.map((_, place) => allRows.some(row => row[place] !== ""));
  const [heads, ...rows] = [allHeads, ...allRows].map(row => row.filter((_, place) => isUsed[place]));
  const cells = (row, tag) =>
    row.map((cell, place) => make(tag, tag === "td" ? { "data-head": heads[place] } : { scope: "col" }, cell));
  return make(
    "table",
    {},
    make("thead", {}, make("tr", {}, ...cells(heads, "th"))),
    make("tbody", {}, ...rows.map(row => make("tr", {}, ...cells(row, "td")))),
  );
}

const named = (name, isRequired) =>
  make("span", {}, make("code", {}, name), isRequired ? make("small", {}, " needed") : "");

function parameters(all) {
  return table(
    ["Name", "In", "Type", "Limits", "Default", "What"],
    all.map(each => [
      named(each.name, each.required),
      each.in,
      typeOf(api, each.schema),
      limitsOf(api, each.schema),
      defaultOf(api, each.schema),
      each.description ?? "",
    ]),
  );
}

/** Say which fields exclude each other. */
function eitherOf(schema) {
  const names = (resolve(api, schema).oneOf ?? []).flatMap(choice => choice.required ?? []);
  return names.length ? make("p", { className: "soft" }, `Needs either ${names.join(" or ")}.`) : null;
}

function properties(schema, isAnswer = false) {
  const found = resolve(api, schema);
  return table(
    ["Name", "Type", "Limits", "Default", "What"],
    Object.entries(found.properties ?? {}).map(([name, each]) => [
      named(name, !isAnswer && found.required?.includes(name)),
      typeOf(api, each),
      limitsOf(api, each),
      defaultOf(api, each),
      each.description ?? "",
    ]),
  );
}

function answers(responses) {
  return make(
    "div",
    {},
    ...Object.entries(responses)
      .sort(([one], [other]) => one - other)
      .map(([status, response]) => {
        const schema = response.content?.["application/json"]?.schema;
        const what = response.description === "Successful Response" ? "Done." : response.description;
        const line = [make("b", { className: status < 300 ? "good" : "fault" }, status), ` ${what}`];
        const hasFields = schema && Object.keys(resolve(api, schema).properties ?? {}).length;
        if (status >= 300 || !hasFields) return make("p", { className: "answer" }, ...line);
        return make("details", { className: "answer" }, make("summary", {}, make("span", {}, ...line)), nested(schema));
      }),
  );
}

/** Show the fields of an answer, and those of the objects in it. */
function nested(schema, seen = new Set()) {
  const name = schema.$ref ?? "";
  if (seen.has(name)) return "";
  seen.add(name);
  const found = resolve(api, schema);
  const parts = Object.values(found.properties ?? {})
    .flatMap(objectsIn)
    .filter(part => !seen.has(part.$ref));
  return make(
    "div",
    {},
    name ? make("h4", {}, name.split("/").at(-1)) : "",
    properties(schema, true),
    ...parts.map(part => nested(part, seen)),
  );
}

const objectsIn = schema =>
  schema.$ref ? [schema] : [...(schema.anyOf ?? []), ...(schema.items ? [schema.items] : [])].flatMap(objectsIn);

at("key").addEventListener("submit", event => event.preventDefault());
at("key-text").addEventListener("change", () => storeKey(key()));
begin();
