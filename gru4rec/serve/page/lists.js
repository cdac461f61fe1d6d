// The recommendations: one list, or those of two models side by side, and what is to be said about them.

import { marker, overlapOf, showOverlap } from "./compare.js";
import { at, say } from "./frame.js";
import { fill, make, moveOf, row, scorer } from "./rows.js";

const shown = { main: null, compare: null }; // ranks by id of the lists that are shown

/**
 * Show the answers to a session.
 * @param n Clicks of the session.
 * @param answer The main model's.
 * @param other The second model's; null: it was not asked.
 * @param on click (an item) and similar (an item, the name of a model).
 */
export function showLists(n, answer, other, on) {
  const nNew = shown.main && answer.items.filter(item => !shown.main.has(String(item.id))).length;
  at("compare-column").hidden = at("overlap").hidden = at("main-name").hidden = other === null;
  showList("main", answer.items, other && marker(other.items, "compare"), on);
  if (other === null) {
    shown.compare = null;
  } else {
    showList("compare", other.items, marker(answer.items, "main"), on);
    showOverlap(at("overlap"), overlapOf(answer.items, other.items));
  }
  showNote(n, answer);
  const clicks = n === 0 ? "No click yet" : n === 1 ? "1 click" : `${n} clicks`;
  say(`${clicks}: ${answer.items.length} items recommended${nNew ? `, ${nNew} of them new` : ""}.`);
}

function showList(name, items, mark, on) {
  const before = shown[name];
  const inThis = { click: on.click, similar: item => on.similar(item, name) };
  const scoreOf = scorer(items);
  const rows = items.map((item, place) =>
    row(item, inThis, {
      rank: place + 1,
      under: mark ? [mark(item)] : [],
      end: [moveOf(place + 1, before && before.get(String(item.id))), scoreOf(item)],
    }),
  );
  const none = make("li", { className: "soft none" }, "No item is left by these options.");
  fill(at(`${name}-list`), rows.length ? rows : [none]);
  shown[name] = new Map(items.map((item, place) => [String(item.id), place + 1]));
}

function showNote(n, { popular, degraded }) {
  let text = "";
  if (degraded)
    text =
      "The session store is lost just now, so this list is for the newest click alone. " +
      "Uncheck “Service keeps session” to send the whole session.";
  else if (popular && n) text = "The model knows none of these items, so these are the ones clicked most in training.";
  else if (popular) text = "Nothing is clicked yet, so these are the items clicked most in training.";
  at("note").textContent = text;
  at("note").hidden = !text;
  at("note").classList.toggle("bad", Boolean(degraded));
}
