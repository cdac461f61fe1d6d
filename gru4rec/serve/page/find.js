// Finding items by title or id.

import { ask, fromJson } from "./api.js";
import { at, later, sayError } from "./frame.js";
import { fill, plain, row } from "./rows.js";

const MOST = 30;
let turn = 0; // only what was looked for last is shown

/** Look for what stands in the field and show it; returns the items, none where something newer is looked for. */
export async function find(on, longest) {
  const now = ++turn;
  const query = at("query").value.trim();
  try {
    const parameters = new URLSearchParams({ query, limit: Math.min(MOST, longest) });
    const { items } = await ask("GET", `v1/items?${parameters}`);
    if (now !== turn) return [];
    show(query, items, on);
    return items;
  } catch (error) {
    if (now === turn) sayError(error, () => find(on, longest));
    return [];
  }
}

function show(query, items, on) {
  const count = n => (n === 1 ? "1 click" : `${plain(n)} clicks`);
  const rows = items.map(item => row(item, on, { under: [count(item.n_events)] }));
  let what = query ? "Found, most clicked first" : "Most clicked";
  if (query && !items.length) {
    what = "Nothing is called that.";
    rows.push(row({ id: idOf(query) }, on, { under: ["click it all the same"] }));
  }
  at("found-what").textContent = what;
  fill(at("found"), rows);
}

/** Take a text for the id that it spells: a number where the ids of the list are numbers. */
function idOf(text) {
  const ids = [...at("main-list").querySelectorAll(".row")].map(line => line.dataset.id);
  const isNumber = [text, ...ids].every(id => /^-?\d{1,18}$/.test(id));
  return isNumber ? fromJson(String(BigInt(text))) : text;
}

/** Make the field look while it is typed in; Enter clicks the first item found, Arrow down goes to it. */
export function listenToField(look, click) {
  const lookSoon = later(look, 120);
  at("query").addEventListener("input", lookSoon);
  at("query").addEventListener("keydown", async event => {
    if (event.key === "ArrowDown") {
      event.preventDefault();
      at("found").querySelector(".click")?.focus();
    } else if (event.key === "Enter" && at("query").value.trim()) {
      lookSoon.cancel();
      const [first] = await look(); // what is shown may be of a text half typed
      if (first) click(first);
    }
  });
}
