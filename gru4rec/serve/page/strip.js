// The session as a strip of clicks, oldest first, each with a button that takes it back.

import { make, nameOf, picture } from "./rows.js";

/**
 * Show the clicks.
 * @param strip The list element.
 * @param clicks Whose items to show.
 * @param on remove (a place in the session) and similar (an item).
 */
export function showStrip(strip, clicks, on) {
  const hadFocus = strip.contains(document.activeElement);
  const chips = clicks.items.map((item, place) => chipOf(item, place, clicks.unknown.has(String(item.id)), on));
  strip.replaceChildren(...chips);
  strip.classList.toggle("empty", !chips.length);
  if (!chips.length) strip.append(make("li", { className: "soft" }, "Nothing clicked yet: pick an item."));
  strip.scrollLeft = strip.scrollWidth;
  if (hadFocus) (strip.lastElementChild.querySelector(".what") ?? strip).focus();
}

function chipOf(item, place, isUnknown, on) {
  const what = make(
    "button",
    { type: "button", className: "what", title: `Items like ${nameOf(item)}` },
    picture(item),
    make("span", { className: "title" }, nameOf(item)),
    isUnknown ? make("span", { className: "badge" }, "unknown: skipped") : null,
  );
  const remove = make(
    "button",
    { type: "button", className: "remove", ariaLabel: `Take back click ${place + 1}, ${nameOf(item)}` },
    "×",
  );
  what.addEventListener("click", () => on.similar(item));
  remove.addEventListener("click", () => on.remove(place));
  return make("li", { className: isUnknown ? "chip unknown" : "chip" }, what, remove);
}

/** Arrow keys move along the strip, Delete takes back the click in focus, Backspace the last one. */
export function walkStrip(strip, on) {
  strip.closest("section").addEventListener("keydown", event => {
    const chip = event.target.closest(".chip");
    const place = [...strip.children].indexOf(chip);
    const next = { ArrowRight: chip?.nextElementSibling, ArrowLeft: chip?.previousElementSibling }[event.key];
    if (next) next.querySelector(".what").focus();
    else if (event.key === "Delete" && chip) on.remove(place);
    else if (event.key === "Backspace") on.undo();
    else return;
    event.preventDefault();
  });
}
