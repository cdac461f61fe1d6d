// JSON Schema in words: types, limits, examples. Knows no page.

/** Follow a reference within the document. */
export const resolve = (document, schema) =>
  schema?.$ref
    ? schema.$ref
        .slice(2)
        .split("/")
        .reduce((part, name) => part[name], document)
    : (schema ?? {});

const distinct = words => [...new Set(words)];

/** Say what a value is: "integer or text", "list of (list of ...)", the values of a choice, the name of an object. */
export function typeOf(document, schema) {
  const named = schema?.$ref?.split("/").at(-1);
  const found = resolve(document, schema);
  const choices = found.anyOf ?? found.oneOf?.filter(choice => choice.type);
  if (choices?.length) return distinct(choices.map(choice => typeOf(document, choice))).join(" or ");
  if (found.enum) return found.enum.map(value => JSON.stringify(value)).join(" or ");
  if (found.const !== undefined) return JSON.stringify(found.const);
  if (found.type === "array") return `list of ${bracketed(typeOf(document, found.items))}`;
  if (found.type === "object" && typeof found.additionalProperties === "object")
    return `object, of ${bracketed(typeOf(document, found.additionalProperties))} by name`;
  if (named) return named;
  return found.type === "string" ? "text" : (found.type ?? "anything");
}

const bracketed = words => (words.includes(" or ") ? `(${words})` : words);

const BOUNDS = [
  ["minimum", "maximum", ""],
  ["minLength", "maxLength", " letters"],
  ["minItems", "maxItems", " entries"],
  ["", "maxProperties", " names"],
];

/** Say the limits of a value itself, not of what is in it. */
export function limitsOf(document, schema) {
  const found = resolve(document, schema);
  const parts = [found, ...(found.anyOf ?? [])]
    .map(part => resolve(document, part))
    .filter(part => part.type !== "null");
  const lists = parts.filter(part => part.type === "array");
  return distinct((lists.length ? lists : parts).flatMap(limitsAlone)).join(", ");
}

function limitsAlone(schema) {
  const ranges = BOUNDS.map(([from, to, what]) => rangeOf(schema[from], schema[to], what));
  return [...ranges, schema.pattern ? `matches ${schema.pattern}` : ""].filter(Boolean);
}

function rangeOf(from, to, what) {
  if (typeof from === "bigint" || typeof to === "bigint" || Math.abs(to) > Number.MAX_SAFE_INTEGER)
    return what ? "" : "64 bits";
  if (from === undefined) return to === undefined ? "" : `up to ${to}${what}`;
  return to === undefined ? `at least ${from}${what}` : `${from} to ${to}${what}`;
}

/** Spell a default; empty where there is none. */
export const defaultOf = (document, schema) => {
  const found = resolve(document, schema);
  return "default" in found ? JSON.stringify(found.default) : "";
};
