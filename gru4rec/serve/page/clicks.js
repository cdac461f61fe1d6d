// The clicks of one visitor, and how many of them the service has been told. Knows no page.

import { ask } from "./api.js";

/** Ids are random also where the page is not served over https, which crypto.randomUUID would need. */
const randomId = () =>
  `playground-${[...crypto.getRandomValues(new Uint32Array(4))].map(n => n.toString(36)).join("")}`;

export class Clicks {
  items = [];
  unknown = new Set();
  keeps = false; // whether the service is to keep the session; else each request brings it whole
  longest = Infinity;
  #sessionId = randomId();
  #told = 0;
  #line = Promise.resolve();

  add(item) {
    this.items = [...this.items, item];
  }

  /** Take a click back: a kept session cannot forget one, so another is begun and told the clicks that remain. */
  remove(place) {
    this.items = this.items.filter((_, at) => at !== place);
    this.#beginAnew();
  }

  clear() {
    this.items = [];
    this.unknown.clear();
    this.#beginAnew();
  }

  /** Ask for the list after the clicks so far. Clicks that are kept wait for each other, to arrive in order. */
  list(options) {
    if (!this.keeps) return this.whole(options);
    const upTo = this.items.length;
    const answer = this.#line.then(() => this.#list(upTo, options));
    this.#line = answer.catch(() => {});
    return answer;
  }

  /** Ask for the list of the whole session, without telling the service to keep anything. */
  async whole(options, model = "main") {
    const session = this.items.slice(-this.longest).map(item => item.id);
    const started = performance.now();
    const answer = await ask("POST", "v1/recommend", { session, model, ...options });
    if (model === "main") this.#note(answer);
    return { ...answer, ms: performance.now() - started };
  }

  async #list(upTo, options) {
    let answer = null;
    for (let lost = 0; lost < 3 && this.#told < Math.min(upTo, this.items.length);) {
      answer = await this.#tell(this.#told === this.items.length - 1 ? options : { k: 1 });
      lost += answer === null;
    }
    return answer ?? this.whole(options);
  }

  /** Tell the service the next click; null where the session was begun anew, to be told from its first click. */
  async #tell(options) {
    const [sessionId, item, started] = [this.#sessionId, this.items[this.#told], performance.now()];
    let answer;
    try {
      answer = await ask("POST", `v1/sessions/${sessionId}/events`, { item: item.id, ...options });
    } catch (error) {
      const mayCount = ![401, 422, 429].includes(error.status);
      if (mayCount && sessionId === this.#sessionId) this.#beginAnew();
      throw error;
    }
    const ms = performance.now() - started;
    if (sessionId !== this.#sessionId) return null; // a click was taken back meanwhile
    this.#told += 1;
    this.#note(answer);
    if (answer.n_clicks !== this.#told && !answer.degraded) {
      this.#beginAnew(); // the service had forgotten the session
      return null;
    }
    return { ...answer, ms };
  }

  #note(answer) {
    answer.unknown.forEach(id => this.unknown.add(String(id)));
  }

  #beginAnew() {
    this.#sessionId = randomId();
    this.#told = 0;
  }
}
