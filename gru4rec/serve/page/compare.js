// Two lists side by side: what is in both, and where it stands in the other.

import { make } from "./rows.js";

const ranksOf = items => new Map(items.map((item, at) => [String(item.id), at + 1]));

/** Count what two lists share. Returns the number in both, at the same rank, and the share of the longer list. */
export function overlapOf(one, other) {
  const ranks = ranksOf(other);
  const shared = one.filter(item => ranks.has(String(item.id)));
  const same = shared.filter(item => one.indexOf(item) + 1 === ranks.get(String(item.id)));
  const longest = Math.max(one.length, other.length);
  return { n: shared.length, nSame: same.length, longest, share: longest ? shared.length / longest : 0 };
}

/** Return what makes the mark of a row: the rank of its item in the other list, or that it is in this one alone. */
export function marker(other, otherName) {
  const ranks = ranksOf(other);
  return item => {
    const rank = ranks.get(String(item.id));
    return rank === undefined
      ? make("span", { className: "mark alone", title: `not in the list of ${otherName}` }, "only here")
      : make("span", { className: "mark both", title: `number ${rank} in the list of ${otherName}` }, `#${rank} there`);
  };
}

/** Say the overlap in a line with a bar. */
export function showOverlap(paragraph, { n, nSame, longest, share }) {
  const bar = make("span", { className: "bar", ariaHidden: "true" });
  bar.style.setProperty("--share", share);
  paragraph.replaceChildren(
    make("b", {}, `${Math.round(100 * share)} % overlap`),
    bar,
    make("span", { className: "soft" }, `${n} of ${longest} items in both lists, ${nSame} of them at the same rank`),
  );
}

/** While the pointer or the focus is on a row, show its twin in the other list. */
export function twin(lists) {
  const mark = (event, on) => {
    const id = event.target.closest?.("li.row")?.dataset.id;
    if (id === undefined) return;
    for (const list of lists)
      for (const line of list.children) line.classList.toggle("twin", on && line.dataset.id === id);
  };
  for (const list of lists) {
    for (const name of ["pointerover", "focusin"]) list.addEventListener(name, event => mark(event, true));
    for (const name of ["pointerout", "focusout"]) list.addEventListener(name, event => mark(event, false));
  }
}
