// The loop: draft, verify, accept, commit. docs/bundle-format.md, "Decoding".

import { DRAFTERS } from "./drafters.js";
import { Engine, Rows, fits, lack, slots } from "./engine.js";
import { remedied, SpeccError } from "./errors.js";
import { choose, runnable } from "./recipes.js";
import { accept } from "./tree.js";

const MARGIN = 128; // scratch rows behind the context
const DEFAULT_CONTEXT = 4096; // tokens that rows are kept for, if the bundle has a longer context

/**
 * @typedef {import("./bundle.js").Bundle} Bundle
 * @typedef {import("./engine.js").Runtime} Runtime
 * @typedef {import("./engine.js").File} File
 * @typedef {import("./tree.js").Draft} Draft
 *
 * @typedef {object} Step
 * @property {number[]} tokens what the step added to the answer.
 * @property {Draft | null} draft what was verified; null for the prompt.
 * @property {number[]} path the slots of the draft that were accepted.
 * @property {string} engine the engine that ran.
 *
 * @typedef {object} Stats
 * @property {string} recipe
 * @property {string | null} note why another recipe ran than the one that was asked for.
 * @property {number} newTokens
 * @property {number} drafts steps that drafted a token.
 * @property {number} drafted
 * @property {number} accepted
 * @property {number} targetCalls without those of the prompt.
 * @property {number} prefillSeconds
 * @property {number} seconds after the first token.
 * @property {number} meanAcceptanceLength
 *
 * @typedef {object} Request
 * @property {string} [recipe]
 * @property {number} [maxNewTokens]
 * @property {() => boolean | Promise<boolean>} [isWanted] is asked before each call of the target, those that read the prompt
 *   included. The answer ends where it says no, and keeps the tokens that came.
 */

/** A bundle with a runtime for its engines. Sessions share its files. */
export class Model {
  /** @type {Map<string, Promise<File>>} */
  #files = new Map();

  /**
   * @param {Bundle} bundle
   * @param {Runtime} runtime
   * @param {object} [options]
   * @param {number} [options.context] tokens that rows are kept for.
   * @param {import("./engine.js").Progress} [options.progress]
   */
  constructor(bundle, runtime, { context = DEFAULT_CONTEXT, progress } = {}) {
    this.bundle = bundle;
    this.runtime = runtime;
    this.progress = progress;
    checkContext(context);
    this.context = Math.min(context, bundle.model.context);
    this.recipes = runnable(bundle, runtime).map((recipe) => recipe.name);
  }

  session() {
    return new Session(this);
  }

  /**
   * Loads an engine's file, once.
   * @param {import("./bundle.js").EngineSpec} spec
   */
  async file(spec) {
    const loading = this.#files.get(spec.file) ?? this.runtime.load(this.bundle, spec, this.progress);
    this.#files.set(spec.file, loading);
    try {
      return await loading;
    } catch (error) {
      this.#files.delete(spec.file);
      throw remedied(error, `${this.runtime.name} cannot load ${spec.file}`);
    }
  }

  /** Frees the engines and the rows, and forgets the weights. Sessions cannot go on. */
  async close() {
    const files = await Promise.allSettled(this.#files.values());
    this.#files.clear();
    for (const file of files) if (file.status === "fulfilled") file.value.close();
    this.runtime.close?.();
    this.bundle.close();
  }
}

/**
 * Raises an error if rows cannot be kept for so many tokens.
 * @param {unknown} context
 */
export function checkContext(context) {
  if (!Number.isInteger(context) || Number(context) < 2) {
    throw new SpeccError(`context is ${context}; give a whole number of 2 or more`);
  }
}

/** A conversation: caches of its own, and what drafters learnt. It decodes one answer at a time. */
export class Session {
  /** @type {Map<string, Engine>} */
  #engines = new Map();
  /** @type {Map<string, Rows>} */
  #rows = new Map();
  /** @type {Map<string, import("./drafters.js").Drafter>} */
  #drafters = new Map();
  /** @type {number[]} */
  #committed = []; // the tokens whose rows the target has
  #busy = false;

  /** @param {Model} model */
  constructor(model) {
    this.model = model;
  }

  /**
   * Chooses a recipe, and loads what its first token needs. Other engines are loaded after that token.
   * @param {string} [name]
   * @returns {Promise<{ recipe: import("./bundle.js").Recipe, note: string | null }>}
   */
  async prepare(name) {
    const choice = choose(this.model.bundle, this.model.runtime, name);
    await this.#engine("decode");
    return choice;
  }

  /**
   * Decodes an answer greedily. Yields each step, and returns what happened. Leaving the loop ends the answer.
   * @param {number[]} prompt
   * @param {Request} [request]
   * @returns {AsyncGenerator<Step, Stats, void>}
   */
  async *steps(prompt, { recipe: name, maxNewTokens = 128, isWanted = () => true } = {}) {
    const { context, vocab_size: vocabulary, eos_token_ids: ends } = this.model.bundle.model;
    const most = Math.min(context, this.model.context);
    if (!Number.isInteger(maxNewTokens) || maxNewTokens < 1) {
      throw new SpeccError(`maxNewTokens is ${maxNewTokens}; give a whole number of 1 or more`);
    }
    if (!Array.isArray(prompt)) throw new SpeccError(`the prompt is ${typeof prompt}; give an array of token ids`);
    if (!prompt.length || prompt.length >= most) {
      throw new SpeccError(`the prompt has ${prompt.length} tokens; give 1 to ${most - 1}`);
    }
    const wrong = prompt.find((token) => !(Number.isInteger(token) && token >= 0 && token < vocabulary));
    if (wrong !== undefined) {
      throw new SpeccError(`the prompt has token ${wrong}; the vocabulary has 0 to ${vocabulary - 1}`);
    }
    if (this.#busy) throw new SpeccError("this session decodes another answer; wait for its end, or open another session");
    this.#busy = true;
    try {
      return yield* this.#decode(prompt, Math.min(prompt.length + maxNewTokens, most), new Set(ends), isWanted, name);
    } catch (error) {
      throw remedied(error);
    } finally {
      this.#busy = false;
    }
  }

  /**
   * @param {number[]} prompt
   * @param {number} end how many tokens the text has at most.
   * @param {Set<number>} ends the tokens that end an answer.
   * @param {() => boolean | Promise<boolean>} isWanted
   * @param {string} [name]
   * @returns {AsyncGenerator<Step, Stats, void>}
   */
  async *#decode(prompt, end, ends, isWanted, name) {
    const { recipe, note } = await this.prepare(name);
    const stats = { recipe: recipe.name, note, newTokens: 0, drafts: 0, drafted: 0, accepted: 0, targetCalls: 0 };
    let start = performance.now();
    const text = [...prompt];
    let step = await this.#prefill(prompt, isWanted);
    const prefillSeconds = (performance.now() - start) / 1000;
    /** @type {import("./drafters.js").Drafting | undefined} */
    let drafting;
    start = performance.now();
    while (step) {
      const last = step.tokens.findIndex((token) => ends.has(token));
      const fresh = step.tokens.slice(0, last < 0 ? undefined : last + 1).slice(0, end - text.length);
      text.push(...fresh);
      stats.newTokens += fresh.length;
      const pause = performance.now(); // What the reader of the steps does is not counted.
      yield { ...step, tokens: fresh };
      const goesOn = last < 0 && text.length < end && (await isWanted());
      start += performance.now() - pause;
      if (!goesOn) break;
      if (!drafting) {
        drafting = (await this.#drafter(recipe)).open();
        for (const engine of recipe.verify) await this.#engine(engine);
        start = performance.now(); // To load engines is no part of a step.
      }
      step = await this.#step(recipe, drafting, text, end - text.length - 1);
      stats.targetCalls++;
      const drafted = /** @type {Draft} */ (step.draft).tokens.length - 1;
      if (drafted) {
        stats.drafts++;
        stats.drafted += drafted;
        stats.accepted += step.path.length - 1;
      }
    }
    const seconds = (performance.now() - start) / 1000;
    return { ...stats, prefillSeconds, seconds, meanAcceptanceLength: stats.drafts ? 1 + stats.accepted / stats.drafts : 1 };
  }

  /**
   * @param {import("./bundle.js").Recipe} recipe
   * @param {import("./drafters.js").Drafting} drafting
   * @param {number[]} text
   * @param {number} room
   * @returns {Promise<Step>}
   */
  async #step(recipe, drafting, text, room) {
    const draft = await drafting.propose(text, room);
    const verifier = recipe.verify.find((each) => {
      const spec = this.model.bundle.engine(each);
      return spec && fits(spec, draft.parents);
    });
    if (verifier === undefined) {
      throw new SpeccError(`a draft of the recipe ${recipe.name} fits none of its engines; compile the bundle again`);
    }
    const engine = await this.#engine(verifier);
    const pastLen = text.length - 1;
    this.#committed.length = pastLen;
    const outputs = await engine.run({ tokens: draft.tokens, pastLen, parents: draft.parents, ...chainInputs(draft, pastLen) });
    const { path, token } = accept(draft, (slot) => outputs.id(slot));
    drafting.observe?.(text, draft, outputs);
    engine.rows.commit(pastLen, path);
    const accepted = path.map((slot) => draft.tokens[slot]);
    this.#committed.push(...accepted);
    return { tokens: [...accepted.slice(1), token], draft, path, engine: verifier };
  }

  /**
   * Runs a prompt but for the rows that an earlier one left, and returns the first token, or null if it is not wanted.
   * @param {number[]} prompt
   * @param {() => boolean | Promise<boolean>} isWanted
   * @returns {Promise<Step | null>}
   */
  async #prefill(prompt, isWanted) {
    let rows = 0;
    // The last token runs in any case, since its outputs are wanted.
    while (rows < prompt.length - 1 && prompt[rows] === this.#committed[rows]) rows++;
    this.#committed.length = rows;
    // A file of any width runs the prompt without a further copy of the weights.
    let engine = await this.#engine("decode");
    const spec = this.model.bundle.engine("prefill") ?? engine.spec;
    const width = slots(spec);
    if (!engine.isOpen && prompt.length - rows > 1) engine = await this.#engine(spec.name);
    while (await isWanted()) {
      const tokens = prompt.slice(rows, rows + width);
      const outputs = await engine.run({ tokens, pastLen: rows });
      this.#committed.push(...tokens);
      rows += tokens.length;
      if (rows < prompt.length) continue;
      const token = outputs.id(engine.spec.block.last_row ? 0 : tokens.length - 1);
      return { tokens: [token], draft: null, path: [], engine: engine.spec.name };
    }
    return null;
  }

  /** @param {import("./bundle.js").Recipe} recipe */
  async #drafter(recipe) {
    let drafter = this.#drafters.get(recipe.name);
    if (drafter) return drafter;
    const kind = DRAFTERS[recipe.drafter];
    /** @type {Record<string, Engine>} */
    const engines = {};
    for (const role of kind.engines) engines[role] = await this.#engine(recipe.engines[role]);
    drafter = new kind.make(recipe.parameters, engines);
    this.#drafters.set(recipe.name, drafter);
    return drafter;
  }

  /**
   * Returns an engine over this session's rows. Its file is loaded when it is first needed.
   * @param {string} name
   */
  async #engine(name) {
    let engine = this.#engines.get(name);
    if (engine) return engine;
    const { bundle, runtime } = this.model;
    const spec = bundle.engine(name);
    if (!spec) throw new SpeccError(`the bundle has no engine '${name}' of the backend onnx; compile it again`);
    const need = lack(bundle, spec, runtime);
    if (need) throw new SpeccError(`the engine ${name} needs ${need}; compile the bundle with --lowering fast`);
    const file = await this.model.file(spec);
    engine = new Engine(runtime, spec, file, this.#cache(spec, file));
    this.#engines.set(name, engine);
    return engine;
  }

  /**
   * Returns the rows of an engine's cache. A file that names the capacity runs over fewer rows than the manifest says.
   * @param {import("./bundle.js").EngineSpec} spec
   * @param {File} file
   */
  #cache(spec, file) {
    const { cache } = spec.block;
    const { capacity } = this.model.bundle.caches[cache];
    const input = spec.inputs.find(({ name }) => name.startsWith("past_key_values."));
    const isNamed = !input || typeof file.dimensions(input.name)[2] !== "number";
    let rows = this.#rows.get(cache);
    if (!rows) {
      const enough = isNamed ? Math.min(capacity, this.model.context + MARGIN) : capacity;
      rows = new Rows(this.model.runtime, this.model.bundle.caches[cache], enough);
      this.#rows.set(cache, rows);
    }
    if (!isNamed && rows.capacity !== capacity) {
      throw new SpeccError(`${spec.file} has ${capacity} rows, and other engines have fewer; give the bundle's context`);
    }
    return rows;
  }
}

/**
 * Returns the inputs of a frontier that verifies a chain.
 * @param {Draft} draft
 * @param {number} pastLen
 */
function chainInputs({ tokens }, pastLen) {
  return {
    depths: tokens.map((_, slot) => slot),
    sees: (/** @type {number} */ slot, /** @type {number} */ row) => row <= pastLen + slot,
  };
}
