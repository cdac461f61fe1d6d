// Trying a request of the description: fields for what it takes, the curl line that sends the same, and the answer.

import { fromJson, inWords, send, toJson } from "./api.js";
import { make } from "./rows.js";
import { defaultOf } from "./schema.js";

/**
 * Make the part of a path that sends requests.
 * @param api The OpenAPI document.
 * @param each path, method and operation.
 * @param given values of parameters by name; body: an example, undefined where none is taken; key: returns the key.
 */
export function trial(api, { path, method, operation }, { values, body, key }) {
  const fields = (operation.parameters ?? []).map(each => [each, fieldOf(api, each, values)]);
  const text = body === undefined ? null : make("textarea", { value: toJson(body, 2), rows: 6, spellcheck: false });
  const curl = make("pre", { tabIndex: 0 });
  const result = make("div", { className: "result" });
  const asked = () => ({ method, path: fillIn(path, fields), text: text?.value });
  const write = () => {
    curl.textContent = curlOf(asked(), operation);
  };
  const form = make(
    "form",
    {},
    ...fields.map(([each, input]) => make("label", {}, make("code", {}, each.name), input)),
    text ? make("label", { className: "wide" }, "Body", text) : null,
    make("button", { className: "strong" }, "Send"),
  );
  form.addEventListener("input", write);
  form.addEventListener("submit", event => {
    event.preventDefault();
    run(asked(), key(), result);
  });
  write();
  return make(
    "div",
    { className: "trial" },
    make("div", { className: "curl" }, copier(curl), curl),
    make("details", {}, make("summary", {}, "Try it"), form, result),
  );
}

function fieldOf(api, { name, required, schema }, values) {
  const [value, placeholder] = [values[name] ?? "", defaultOf(api, schema)];
  return make("input", { type: "text", value, placeholder, required, autocomplete: "off", spellcheck: false });
}

/** Return the path with its parameters, relative to this page. */
function fillIn(path, fields) {
  const query = new URLSearchParams();
  for (const [{ name, in: place }, input] of fields) {
    if (place === "path") path = path.replace(`{${name}}`, hole => encodeURIComponent(input.value) || hole);
    else if (input.value) query.set(name, input.value);
  }
  return `${path.slice(1)}${query.size ? `?${query}` : ""}`;
}

const quoted = text => `'${text.replaceAll("'", `'\\''`)}'`;

function curlOf({ method, path, text }, { security }) {
  const address = new URL(path, document.baseURI).href.replaceAll("%7B", "{").replaceAll("%7D", "}");
  const lines = [`curl${method === "GET" ? "" : ` -X ${method}`} ${quoted(address)}`];
  if (security) lines.push(`-H "Authorization: Bearer $KEY"`);
  if (text !== undefined) lines.push("-H 'Content-Type: application/json'", `-d ${quoted(oneLine(text))}`);
  return lines.join(" \\\n  ");
}

function oneLine(text) {
  try {
    return toJson(fromJson(text));
  } catch {
    return text; // it is still being typed
  }
}

async function run({ method, path, text }, key, result) {
  const status = make("p", { role: "status" }, "Asked.");
  result.replaceChildren(status);
  try {
    const answer = await send(method, path, text, key);
    const after = answer.headers.get("Retry-After");
    status.textContent = `${answer.status} in ${answer.ms.toFixed(1)} ms${after ? `, Retry-After ${after} s` : ""}`;
    status.className = answer.ok ? "good" : "fault";
    if (answer.text) result.append(make("pre", { tabIndex: 0 }, spread(answer.text)));
  } catch (error) {
    status.textContent = inWords(error);
    status.className = "fault";
  }
}

function spread(text) {
  try {
    return toJson(fromJson(text), 2);
  } catch {
    return text; // metrics, for one
  }
}

function copier(pre) {
  const button = make("button", { type: "button" }, "Copy");
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(pre.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(pre); // a page that is not served over https may not copy
      button.textContent = "Press Ctrl+C";
    }
    setTimeout(() => {
      button.textContent = "Copy";
    }, 1500);
  });
  return button;
}
