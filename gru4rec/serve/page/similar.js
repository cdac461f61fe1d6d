// The dialog of items like one.

import { ask } from "./api.js";
import { at, sayError } from "./frame.js";
import { fill, nameOf, row, scorer } from "./rows.js";

const MOST = 20;
const HOW = {
  cosine: "the cosine of what it learned of each item",
  scores: "its scores after a click on this item alone",
};
let turn = 0; // only what was asked for last is shown

/** Ask a model what is like an item, and show it; a click on one of them is a click of the session. */
export async function showSimilar(item, model, click, longest) {
  const now = ++turn;
  const again = each => showSimilar(each, model, click, longest);
  const parameters = new URLSearchParams({ k: Math.min(MOST, longest), model, details: true });
  try {
    const answer = await ask("GET", `v1/items/${encodeURIComponent(item.id)}/similar?${parameters}`);
    if (now !== turn) return;
    const scoreOf = scorer(answer.items);
    at("similar-head").textContent = `Like ${nameOf(item)}`;
    at("similar-what").textContent = `By model ${model}: ${HOW[answer.by] ?? answer.by}.`;
    const rows = answer.items.map((each, place) =>
      row(each, { click, similar: again }, { rank: place + 1, end: [scoreOf(each)] }),
    );
    fill(at("similar-list"), rows);
    if (!at("similar").open) at("similar").showModal();
    at("similar").scrollTop = 0;
  } catch (error) {
    if (now === turn) sayError(error, () => again(item));
  }
}
