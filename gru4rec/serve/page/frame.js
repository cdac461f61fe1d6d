// What surrounds the lists: the status line, the form for a key, dialogs, and the keys that work everywhere.

import { inWords, storedKey, storeKey } from "./api.js";

export const at = id => document.getElementById(id);

/** Say something in the status line; `again` is what its button does, null for no button. */
export function say(text, kind = "", again = null) {
  at("status").textContent = text;
  at("status").className = kind;
  at("again").hidden = again === null;
  at("again").onclick = again;
}

/** Say what went wrong, and offer to try again where that may help. */
export function sayError(error, again) {
  if (error.status === 401) askForKey();
  say(inWords(error), "bad", error.status === 401 || error.status === 422 ? null : again);
}

export function askForKey() {
  at("key").hidden = false;
  at("key-why").textContent = storedKey() ? "That key does not fit." : "This service wants one.";
  at("key-text").value = "";
  at("key-text").focus();
}

/** Return a function that calls another once nothing was asked of it for some milliseconds, and can be told not to. */
export function later(act, ms) {
  let timer;
  const soon = () => {
    clearTimeout(timer);
    timer = setTimeout(act, ms);
  };
  soon.cancel = () => clearTimeout(timer);
  return soon;
}

/** Make the form, the dialogs and the keys work. */
export function listenAround(onKey) {
  at("key").addEventListener("submit", event => {
    event.preventDefault();
    storeKey(at("key-text").value.trim());
    onKey();
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
