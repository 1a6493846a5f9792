// @ts-check
/**
 * A client of `hins serve` for agents in TypeScript or JavaScript: one file, no packages, Node 20 or later, Deno or Bun.
 * The types are in the comments, where TypeScript reads them (`tsc --checkJs`, or `allowJs` in your project).
 *
 * @typedef {{user?: string, agent?: string, run?: string, tenant?: string}} Scope at least a user, an agent or a run
 * @typedef {{memory_id: string, text: string, score: number}} Result
 * @typedef {{id?: string, scope: Scope, query: string, results: Result[], encoder_version?: string, time?: number}} Retrieval
 * @typedef {{id: string, scope: Scope, conversation: string, text: string, speaker?: string, turn_ids?: string[],
 *   topic?: string, time?: number}} Memory
 * @typedef {{id?: string, scope: Scope, conversation: string, speaker: string, text: string, time?: number}} Turn
 * @typedef {{type: "answer", retrieval_id: string, text: string, time?: number}
 *   | {type: "feedback", retrieval_id: string, memory_id: string, polarity: "POSITIVE" | "NEGATIVE", time?: number}} Outcome
 * @typedef {{scope: Scope, memory_id?: string, time?: number}} Deletion
 * @typedef {{recorded: number, known: number, ids: string[], capture: boolean}} Recorded
 */

const ATTEMPTS = 3;
// Too many requests, and a server that is starting or ending.
const AGAIN = [429, 502, 503, 504];

/** What the server refused; `status` is 409 for an id that is known with other content. */
export class HinsError extends Error {
  /** @param {number} status @param {string} message */
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** Records what an agent does. The same event sent again is harmless, so that a request without an answer is repeated. */
export class Hins {
  /** @param {string} url of the server @param {string} [key] what HINS_API_KEY is there @param {number} [timeout] ms */
  constructor(url, key = "", timeout = 10_000) {
    this.url = url.replace(/\/+$/, "");
    this.key = key;
    this.timeout = timeout;
  }

  /**
   * Record a search and what it returned, best first.
   * @param {Retrieval} retrieval
   * @returns {Promise<string>} its id, which outcomes name
   */
  async retrieved(retrieval) {
    // Made here, so that a repeated request has the same id.
    const id = retrieval.id ?? crypto.randomUUID();
    await this.post("/v1/retrievals", { time: Date.now() / 1000, ...retrieval, id });
    return id;
  }

  /** @param {string} retrievalId @param {string} text what the agent answered */
  async answered(retrievalId, text) {
    await this.post("/v1/outcomes", { type: "answer", retrieval_id: retrievalId, text });
  }

  /** @param {string} retrievalId @param {string} memoryId @param {"POSITIVE" | "NEGATIVE"} polarity */
  async feedback(retrievalId, memoryId, polarity) {
    await this.post("/v1/outcomes", { type: "feedback", retrieval_id: retrievalId, memory_id: memoryId, polarity });
  }

  /** @param {Memory | Memory[]} memories what was stored, or changed */
  async remembered(memories) {
    return this.post("/v1/memories", memories);
  }

  /** @param {Turn | Turn[]} turns what was said */
  async said(turns) {
    return this.post("/v1/turns", turns);
  }

  /** @param {Deletion | Deletion[]} deletions */
  async deleted(deletions) {
    return this.post("/v1/deletions", deletions);
  }

  /**
   * @param {string} path
   * @param {object} body one event, or a list of at most 500
   * @returns {Promise<Recorded>}
   */
  async post(path, body) {
    /** @type {Record<string, string>} */
    const headers = { "content-type": "application/json" };
    if (this.key) headers.authorization = `Bearer ${this.key}`;
    for (let attempt = 1; ; attempt += 1) {
      let wait = 500 * attempt;
      try {
        const signal = AbortSignal.timeout(this.timeout);
        const response = await fetch(`${this.url}${path}`, { method: "POST", headers, body: JSON.stringify(body), signal });
        const said = await response.json();
        if (response.ok) return said;
        if (!AGAIN.includes(response.status) || attempt === ATTEMPTS) {
          throw new HinsError(response.status, said?.error?.message ?? response.statusText);
        }
        wait = 1000 * Number(response.headers.get("retry-after") ?? wait / 1000);
      } catch (error) {
        if (error instanceof HinsError || attempt === ATTEMPTS) throw error;
      }
      await new Promise((done) => setTimeout(done, Math.min(wait, 5000)));
    }
  }
}
