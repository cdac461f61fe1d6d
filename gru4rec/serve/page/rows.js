// Lists of items: a row is a button that clicks the item and one that shows what is like it. Text goes in as text.

import { authorization, storedKey } from "./api.js";

/** Make an element: properties by name, then what is in it. */
export function make(tag, properties = {}, ...content) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...content.filter(part => part !== null));
  return element;
}

export const nameOf = item => item.title ?? `Item ${item.id}`;
export const plain = number => number.toLocaleString("en");

/** Make a picture, or a coloured tile with the beginning of the name where there is none or it does not load. */
export function picture(item) {
  const box = make("span", { className: "picture", ariaHidden: "true" });
  const tile = () => {
    box.style.setProperty("--hue", hueOf(String(item.id)));
    box.classList.add("tile");
    box.replaceChildren(lettersOf(item));
  };
  if (!item.picture) {
    tile();
    return box;
  }
  const image = make("img", { alt: "", loading: "lazy", decoding: "async" });
  image.addEventListener("error", tile);
  box.append(image);
  addressOf(item).then(address => {
    image.src = address;
  }, tile);
  return box;
}

const hueOf = id => [...id].reduce((sum, letter) => (sum * 31 + letter.codePointAt()) % 360, 7);

function lettersOf({ id, title }) {
  const letters = title?.match(/[\p{L}\p{N}]/gu) ?? [];
  return letters.slice(0, 2).join("") || String(id).slice(-2);
}

const fetched = new Map();

/** An absolute address is the shop's; a file beside the catalogue comes from the service, which may want the key. */
function addressOf(item) {
  if (/^https?:/i.test(item.picture)) return Promise.resolve(item.picture);
  const path = `v1/items/${encodeURIComponent(item.id)}/picture`;
  if (!storedKey()) return Promise.resolve(path);
  if (!fetched.has(path)) fetched.set(path, blobAddress(path));
  return fetched.get(path);
}

async function blobAddress(path) {
  const response = await fetch(path, { headers: authorization() });
  if (!response.ok) throw new Error(`status ${response.status}`);
  return URL.createObjectURL(await response.blob());
}

/**
 * Make the row of an item.
 * @param item id, title, picture.
 * @param on click and similar: what the two buttons do.
 * @param given rank; under: texts and elements under the name; end: elements at the end of the row.
 */
export function row(item, on, { rank = null, under = [], end = [] } = {}) {
  const parts = item.title ? [`id ${item.id}`, ...under] : under;
  const click = make(
    "button",
    { type: "button", className: "click", title: nameOf(item) },
    rank === null ? null : make("span", { className: "rank" }, String(rank)),
    picture(item),
    make(
      "span",
      { className: "name" },
      make("span", { className: "title" }, nameOf(item)),
      parts.length ? make("small", {}, ...parts.flatMap((part, place) => (place ? [" · ", part] : [part]))) : null,
    ),
    ...end,
  );
  const similar = make(
    "button",
    { type: "button", className: "similar", title: `Items like ${nameOf(item)}` },
    make("span", { ariaHidden: "true" }, "≈"),
    make("span", { className: "unseen" }, `Items like ${nameOf(item)}`),
  );
  click.addEventListener("click", () => on.click(item));
  similar.addEventListener("click", () => on.similar(item));
  const line = make("li", { className: "row" }, click, similar);
  line.dataset.id = String(item.id);
  return line;
}

/** Put rows in a list; the focus stays at the place where it was. */
export function fill(list, rows) {
  const focused = list.contains(document.activeElement) ? document.activeElement : null;
  const place = focused ? [...list.children].indexOf(focused.closest("li")) : -1;
  const which = focused?.className;
  list.replaceChildren(...rows);
  if (place >= 0) (list.children[Math.min(place, rows.length - 1)]?.getElementsByClassName(which)[0] ?? list).focus();
}

/** Return what makes the score of a row: a number, and a bar between the lowest and the highest of the list. */
export function scorer(items) {
  const scores = items.map(item => item.score);
  const [lowest, highest] = [Math.min(...scores), Math.max(...scores)];
  const size = Math.max(Math.abs(lowest), Math.abs(highest));
  const digits = scores.every(Number.isInteger) || size >= 1000 ? 0 : size >= 10 ? 2 : 3;
  return ({ score }) => {
    const bar = make("span", { className: "bar", ariaHidden: "true" });
    bar.style.setProperty("--share", highest > lowest ? 0.06 + (0.94 * (score - lowest)) / (highest - lowest) : 1);
    return make(
      "span",
      { className: "score", title: `score ${score}` },
      make("span", { className: "number" }, score.toFixed(digits)),
      bar,
    );
  };
}

/** Make how an item moved: against nothing, from nowhere, up, down or not at all. */
export function moveOf(rank, before) {
  if (before === null) return make("span", { className: "move" });
  if (before === undefined) return make("span", { className: "move new" }, "new");
  const moved = before - rank;
  if (!moved)
    return make(
      "span",
      { className: "move same" },
      make("span", { ariaHidden: "true" }, "="),
      make("span", { className: "unseen" }, "same place"),
    );
  const [kind, arrow] = moved > 0 ? ["up", "▲"] : ["down", "▼"];
  return make(
    "span",
    { className: `move ${kind}` },
    make("span", { ariaHidden: "true" }, `${arrow} ${Math.abs(moved)}`),
    make("span", { className: "unseen" }, `${kind} ${Math.abs(moved)}`),
  );
}

/** Let the arrow keys move between the rows of a list, and between the two buttons of a row. */
export function walkByKeys(list) {
  list.addEventListener("keydown", event => {
    const line = event.target.closest("li");
    if (!line || event.altKey || event.ctrlKey || event.metaKey) return;
    const column = event.target.classList.contains("similar") ? 1 : 0;
    const lines = [...list.children];
    const at = lines.indexOf(line);
    const to = {
      ArrowDown: () => lines[Math.min(at + 1, lines.length - 1)].children[column],
      ArrowUp: () => lines[Math.max(at - 1, 0)].children[column],
      Home: () => lines[0].children[column],
      End: () => lines.at(-1).children[column],
      ArrowRight: () => line.children[1],
      ArrowLeft: () => line.children[0],
    }[event.key]?.();
    if (!to) return;
    event.preventDefault();
    to.focus();
  });
}
