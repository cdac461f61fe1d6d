// Asking the service: keys, JSON with whole 64-bit ids, and errors in words.

const KEY = "gru4rec-api-key";
const LONGEST_MS = 15_000;

/** An answer that is no answer. `retryAfterS` is null where the service names no time; status 0: nobody answered. */
export class AskError extends Error {
  constructor(status, message, retryAfterS = null) {
    super(message);
    this.status = status;
    this.retryAfterS = retryAfterS;
  }
}

export const storedKey = () => sessionStorage.getItem(KEY) ?? "";
export const storeKey = key => (key ? sessionStorage.setItem(KEY, key) : sessionStorage.removeItem(KEY));
export const authorization = (key = storedKey()) => (key ? { Authorization: `Bearer ${key}` } : {});

/** Read JSON; integers that a double cannot hold become BigInt, where the browser shows how they were spelled. */
export const fromJson = text =>
  JSON.parse(text, (_, value, context) =>
    Number.isInteger(value) && !Number.isSafeInteger(value) && /^-?\d+$/.test(context?.source ?? "")
      ? BigInt(context.source)
      : value,
  );

export const toJson = (value, indent) =>
  JSON.stringify(value, (_, part) => (typeof part === "bigint" ? JSON.rawJSON(String(part)) : part), indent);

/** Ask and return what was answered; raise AskError otherwise. Paths are relative, so that a prefix does no harm. */
export async function ask(method, path, body) {
  const { status, ok, headers, text } = await send(method, path, body === undefined ? undefined : toJson(body));
  let answer;
  try {
    answer = text ? fromJson(text) : null;
  } catch {
    throw new AskError(status, `the answer (status ${status}) is no JSON: something stands between page and service`);
  }
  if (ok) return answer;
  const seconds = Number(headers.get("Retry-After"));
  throw new AskError(status, answer?.error?.message ?? `status ${status}`, seconds > 0 ? seconds : null);
}

/** Send text and return status, headers, text and the milliseconds it took. */
export async function send(method, path, text, key = storedKey()) {
  const headers = { ...authorization(key), ...(text === undefined ? {} : { "Content-Type": "application/json" }) };
  const started = performance.now();
  try {
    const signal = AbortSignal.timeout(LONGEST_MS);
    const response = await fetch(path, { method, headers, body: text, cache: "no-store", signal });
    const answered = await response.text();
    const { status, ok } = response;
    return { status, ok, headers: response.headers, text: answered, ms: performance.now() - started };
  } catch {
    throw new AskError(0, "the service does not answer");
  }
}

/** Say in a sentence what went wrong, and what helps. */
export function inWords(error) {
  if (!(error instanceof AskError)) return `The page met a fault of its own: ${error.message}. Reload it.`;
  const again = error.retryAfterS ? `Try again in ${error.retryAfterS} s.` : "Try again.";
  const said = error.message.replace(/\.?$/, ".");
  switch (error.status) {
    case 0:
      return "The service does not answer. See whether it still runs and whether you are connected, then try again.";
    case 401:
      return storedKey() ? "That key does not fit. Give another one." : "This service wants an API key.";
    case 422:
      return `The service refused the request: ${said}`;
    case 429:
      return `The service has too much to do just now. ${again}`;
    case 503:
      return `The service cannot answer at the moment: ${error.message}. ${again}`;
    default:
      return `${said[0].toUpperCase()}${said.slice(1)}${error.status >= 500 ? ` ${again}` : ""}`;
  }
}
