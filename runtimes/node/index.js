// Bundles of specc compile in Node, over libspecc, or without it over onnxruntime-node. index.d.ts describes what is exported.

import { load } from "./library.js";
import { openText } from "./text.js";

const DEFAULT_LIBRARY = "libspecc.so.0";
const MOST_THREADS = 4096;
const MOST_TOKENS = 2 ** 31 - 1; // More than any context has, and a number that every call can carry.
const CANCEL_AGAIN = 5; // Milliseconds. A request that waits for a thread forgets what was called before it began.

/**
 * Opens a bundle. Its files are checked on another thread.
 * @type {typeof import("./index.d.ts").open}
 */
export async function open(bundle, options) {
  const { library, onnxruntime, threads = 0 } = options ?? {};
  checkText("bundle", bundle);
  checkText("onnxruntime", onnxruntime ?? "");
  checkText("library", library ?? "");
  if (!Number.isInteger(threads) || threads < 0 || threads > MOST_THREADS) {
    throw new Error(`threads is ${shown(threads)}; give a whole number of 0 to ${MOST_THREADS}`);
  }
  const loaded = await loadLibrary(library || process.env.SPECC_LIBRARY || undefined);
  return new Model(loaded, await loaded.openModel(bundle, onnxruntime ?? null, threads), bundle);
}

/**
 * Throws if a value is not a text without zeros. libspecc would read another value as an address.
 * @param {string} name
 * @param {unknown} value
 */
function checkText(name, value) {
  if (typeof value !== "string" || (name !== "the prompt" && value.includes("\0"))) throw new Error(`${name} is ${shown(value)}; give a text`);
}

/**
 * Returns the token ids of a prompt as libspecc reads them.
 * @param {unknown} prompt
 */
function tokenIds(prompt) {
  const isList = Array.isArray(prompt) || (ArrayBuffer.isView(prompt) && !(prompt instanceof DataView));
  if (!isList) throw new Error(`the prompt is ${shown(prompt)}; give an array of token ids`);
  const ids = Array.from(/** @type {ArrayLike<unknown>} */ (prompt));
  const wrong = ids.find((id) => !(typeof id === "bigint" ? BigInt.asIntN(64, id) === id : Number.isSafeInteger(id)));
  if (wrong !== undefined || ids.includes(undefined)) throw new Error(`the prompt has token ${shown(wrong)}; give whole numbers`);
  return BigInt64Array.from(ids, (id) => BigInt(/** @type {number | bigint} */ (id)));
}

/**
 * Returns a value as a message shows it.
 * @param {unknown} value
 */
function shown(value) {
  return typeof value === "string" ? JSON.stringify(value).slice(0, 60) : String(value).slice(0, 60);
}

/**
 * Loads libspecc. Where nobody names its path and there is none, JavaScript over onnxruntime-node takes its place.
 * @param {string} [path]
 * @returns {Promise<import("./library.js").Library>}
 */
async function loadLibrary(path) {
  try {
    return load(path ?? DEFAULT_LIBRARY);
  } catch (error) {
    if (path !== undefined) throw error;
    const { loadFallback } = await import("./fallback.js");
    return /** @type {any} */ (await loadFallback(/** @type {Error} */ (error)));
  }
}

class Model {
  /** @type {Set<Session>} */
  #sessions = new Set();
  /** @type {ReturnType<typeof openText> | undefined} */
  #text;
  /** @type {Promise<void> | undefined} */
  #closing;
  /** @type {any} */
  #handle;
  #library;
  #bundle;

  /**
   * @param {import("./library.js").Library} library
   * @param {unknown} handle
   * @param {string} bundle
   */
  constructor(library, handle, bundle) {
    this.#library = library;
    this.#handle = handle;
    this.#bundle = bundle;
    /** What decodes: libspecc or onnxruntime-node, with its version. */
    this.runtime = library.version();
    this.recipes = [];
    for (let name; (name = library.recipe(handle, this.recipes.length)); ) this.recipes.push(name);
  }

  session() {
    if (!this.#handle) throw new Error("the model is closed; open the bundle again");
    const session = new Session(this.#library, this.#library.openSession(this.#handle), this);
    this.#sessions.add(session);
    return session;
  }

  text() {
    const reading = (this.#text ??= openText(this.#bundle));
    reading.catch(() => (this.#text = undefined)); // It is read again next time.
    return reading;
  }

  close() {
    return (this.#closing ??= this.#close());
  }

  async #close() {
    const handle = this.#handle;
    this.#handle = null;
    await Promise.all([...this.#sessions].map((session) => session.close()));
    await this.#library.closeModel(handle);
  }

  /** @param {Session} session */
  forget(session) {
    this.#sessions.delete(session);
  }
}

class Session {
  /** @type {Promise<any> | null} */
  #request = null;
  /** @type {Promise<void> | undefined} */
  #closing;
  /** @type {any} */
  #handle;
  #library;
  #model;

  /**
   * @param {import("./library.js").Library} library
   * @param {unknown} handle
   * @param {Model} model
   */
  constructor(library, handle, model) {
    this.#library = library;
    this.#handle = handle;
    this.#model = model;
  }

  /**
   * @param {number[]} prompt
   * @param {import("./index.d.ts").Options} [options]
   */
  async generate(prompt, options) {
    const { tokens, counts } = await this.#start(prompt, options, (...values) => this.#library.generateAll(...values));
    return { tokens, stats: statistics(counts) };
  }

  /**
   * @param {number[]} prompt
   * @param {import("./index.d.ts").Options} [options]
   * @returns {AsyncGenerator<number[], import("./index.d.ts").Stats, void>}
   */
  async *stream(prompt, options) {
    /** @type {number[][]} */
    const steps = [];
    let wanted = true;
    let wake = () => {};
    const onTokens = (/** @type {number[]} */ step) => {
      steps.push(step);
      wake();
      return wanted;
    };
    const request = this.#start(prompt, options, (...values) => this.#library.generate(...values, onTokens));
    let ended = false;
    const end = () => {
      ended = true;
      wake();
    };
    request.then(end, end);
    try {
      while (!ended || steps.length) {
        if (!steps.length) await new Promise((resolve) => (wake = () => resolve(undefined)));
        yield* steps.splice(0);
      }
    } finally {
      wanted = false;
      if (!ended) this.cancel();
      await request.catch(() => {});
    }
    return statistics(await request);
  }

  /**
   * @param {string} prompt
   * @param {import("./index.d.ts").Options} [options]
   * @returns {AsyncGenerator<string, import("./index.d.ts").Stats, void>}
   */
  async *streamText(prompt, options) {
    checkText("the prompt", prompt);
    const text = await this.#model.text();
    const ids = text.encode(prompt);
    const writer = text.stream(ids);
    const steps = this.stream(ids, options);
    try {
      for (;;) {
        const { done, value } = await steps.next();
        const piece = done ? writer.end() : writer.push(/** @type {number[]} */ (value));
        if (piece) yield piece;
        if (done) return /** @type {import("./index.d.ts").Stats} */ (value);
      }
    } finally {
      await steps.return(/** @type {any} */ (undefined));
    }
  }

  cancel() {
    const [handle, request] = [this.#handle, this.#request];
    if (!handle || !request) return;
    const cancel = () => this.#library.cancel(handle);
    cancel();
    const timer = setInterval(cancel, CANCEL_AGAIN);
    const end = () => clearInterval(timer);
    request.then(end, end);
  }

  close() {
    return (this.#closing ??= this.#close());
  }

  async #close() {
    this.cancel();
    const [handle, request] = [this.#handle, this.#request];
    this.#handle = null;
    await request?.catch(() => {});
    this.#library.closeSession(handle);
    this.#model.forget(this);
  }

  /**
   * @template T
   * @param {number[]} prompt
   * @param {import("./index.d.ts").Options} [options]
   * @param {(session: unknown, prompt: BigInt64Array, recipe: string | null, maxNewTokens: number) => Promise<T>} decode
   * @returns {Promise<T>}
   */
  #start(prompt, options, decode) {
    const { maxNewTokens = 128, recipe } = options ?? {};
    if (!this.#handle) throw new Error("the session is closed; open another one");
    if (this.#request) throw new Error("this session decodes another answer; wait for its end, or open another session");
    if (!(Number.isInteger(maxNewTokens) || maxNewTokens === Infinity) || maxNewTokens < 1) {
      throw new Error(`maxNewTokens is ${shown(maxNewTokens)}; give a whole number of 1 or more`);
    }
    checkText("recipe", recipe ?? "");
    const most = Math.min(maxNewTokens, MOST_TOKENS);
    const request = decode(this.#handle, tokenIds(prompt), recipe ?? null, most).finally(() => (this.#request = null));
    this.#request = request;
    return request;
  }
}

/**
 * Returns what happened in a request, by the names of this module.
 * @param {any} counts
 * @returns {import("./index.d.ts").Stats}
 */
function statistics(counts) {
  return {
    recipe: counts.recipe,
    newTokens: Number(counts.new_tokens),
    drafts: Number(counts.drafts),
    drafted: Number(counts.drafted),
    accepted: Number(counts.accepted),
    targetCalls: Number(counts.target_calls),
    prefillSeconds: counts.prefill_seconds,
    seconds: counts.seconds,
    meanAcceptanceLength: counts.mean_acceptance_length,
  };
}
