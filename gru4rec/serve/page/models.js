// What is served: a card for each model, and one for the catalogue and the limits.

import { make, plain } from "./rows.js";

const KINDS = { gru4rec: "GRU4Rec" };
const kindOf = model => KINDS[model.kind] ?? model.kind;

/** Say in a line what is served. */
export const inALine = model =>
  `${model.file} · ${kindOf(model)} · ${plain(model.n_items)} items · version ${model.version.slice(0, 8)}`;

/** Fill the section of models. */
export function showModels(section, described) {
  section.replaceChildren(...described.models.map(cardOf), serviceCard(described));
}

function cardOf(model) {
  return make(
    "article",
    { className: "card" },
    make("h2", {}, "Model ", make("code", {}, model.name)),
    terms([
      ["file", model.file],
      ["version", model.version],
      ["kind", kindOf(model)],
      ["items", plain(model.n_items)],
      ["search", model.search],
      ["trained on", model.data_fingerprint],
      ["loaded", new Date(model.loaded_at).toLocaleString("en-GB")],
    ]),
    folded("Settings", Object.entries(model.settings)),
  );
}

function serviceCard({ limits, catalogue, keeps_sessions }) {
  return make(
    "article",
    { className: "card" },
    make("h2", {}, "Service"),
    terms([
      ["sessions", keeps_sessions ? "kept by the service" : "sent with each request"],
      ["catalogue", catalogue ? `${plain(catalogue.n_described)} items described` : "none: items have ids only"],
      ...(catalogue?.columns.length ? [["filters", catalogue.columns.join(", ")]] : []),
    ]),
    folded("Limits", Object.entries(limits)),
    make(
      "p",
      { className: "links" },
      make("a", { href: "docs" }, "Interface"),
      make("a", { href: "metrics" }, "Metrics"),
      make("a", { href: "openapi.json" }, "OpenAPI"),
    ),
  );
}

function folded(title, pairs) {
  return make("details", {}, make("summary", {}, title), terms(pairs.map(([name, value]) => [name, said(value)])));
}

const said = value => (value === null ? "none" : typeof value === "object" ? JSON.stringify(value) : String(value));

const terms = pairs =>
  make(
    "dl",
    { className: "terms" },
    ...pairs.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]),
  );
