// The drafters that this runtime has. docs/bundle-format.md specifies version 1 of each algorithm.
//
// A drafter serves one session. `open` begins a request, and returns an object that proposes drafts after its text, and
// observes what the target answered in each slot.

import { NgramIndex } from "./ngram_index.js";
import { TokenRecycling } from "./token_recycling.js";
import { chain } from "./tree.js";
import { TreeDraft } from "./tree_draft.js";

/**
 * @typedef {import("./tree.js").Draft} Draft
 * @typedef {import("./engine.js").Engine} Engine
 * @typedef {import("./engine.js").Outputs} Outputs
 *
 * @typedef {object} Drafting drafts for one request.
 * @property {(text: number[], room: number) => Draft | Promise<Draft>} propose returns the pending token and at most `room`
 *   levels of tokens after it. A tree may be deeper.
 * @property {(text: number[], draft: Draft, outputs: Outputs) => void} [observe] reads the target's outputs in each slot. The
 *   text is that before the step.
 *
 * @typedef {object} Drafter
 * @property {() => Drafting} open
 *
 * @typedef {object} Kind
 * @property {new (parameters: any, engines: any) => Drafter} make
 * @property {string[]} parameters the names that the algorithm has here.
 * @property {string[]} [optional] those of them that may be missing.
 * @property {string[]} engines
 * @property {number} version
 */

const MOST_ANSWERS = 1 << 17; // N-grams of the table. A larger one is emptied.

/** A drafter that proposes nothing. */
class Plain {
  open() {
    return { propose: (/** @type {number[]} */ text) => chain(text.slice(-1)) };
  }
}

/** A drafter that copies what followed the last tokens earlier in the text. */
class PromptLookup {
  /** @param {{ prompt_lookup_num_tokens: number, max_matching_ngram_size: number }} parameters */
  constructor({ prompt_lookup_num_tokens: count, max_matching_ngram_size: longest }) {
    this.count = count;
    this.longest = longest;
  }

  open() {
    const index = new NgramIndex(this.longest);
    return {
      propose: (/** @type {number[]} */ text, /** @type {number} */ room) =>
        chain([...text.slice(-1), ...index.after(text, this.count).slice(0, room)]),
    };
  }
}

/** A drafter that copies from the text, and goes on with what the target last answered after the same tokens. */
class RecycledLookup {
  /** @type {Map<string, number>} */
  #answers = new Map();

  /** @param {{ prompt_lookup_num_tokens: number, max_matching_ngram_size: number }} parameters */
  constructor({ prompt_lookup_num_tokens: count, max_matching_ngram_size: longest }) {
    this.count = count;
    this.longest = longest;
  }

  open() {
    const index = new NgramIndex(this.longest);
    return {
      propose: (/** @type {number[]} */ text, /** @type {number} */ room) => {
        const most = Math.min(this.count, room);
        const drafted = index.after(text, this.count).slice(0, most);
        const tail = [...text.slice(-this.longest), ...drafted];
        while (drafted.length < most) {
          const answer = this.#answers.get(tail.slice(-this.longest).join());
          if (answer === undefined) break;
          drafted.push(answer);
          tail.push(answer);
        }
        return chain([...text.slice(-1), ...drafted]);
      },
      observe: (/** @type {number[]} */ text, /** @type {Draft} */ draft, /** @type {Outputs} */ outputs) => {
        if (this.#answers.size > MOST_ANSWERS) this.#answers.clear();
        const before = text.slice(Math.max(0, text.length - this.longest), -1);
        const tokens = [...before, ...draft.tokens];
        for (let end = this.longest; end <= tokens.length; end++) {
          this.#answers.set(tokens.slice(end - this.longest, end).join(), outputs.id(end - 1 - before.length));
        }
      },
    };
  }
}

/** A drafter of chains by an engine over the target's rows, such as the target in 4 bits or with fewer layers. */
class LayerSkip {
  /**
   * @param {{ num_speculative_tokens: number, assistant_confidence_threshold?: number }} parameters
   * @param {{ draft: Engine }} engines
   */
  constructor({ num_speculative_tokens: count, assistant_confidence_threshold: threshold = 0 }, { draft }) {
    this.count = count;
    this.threshold = threshold;
    this.engine = draft;
  }

  open() {
    return {
      propose: async (/** @type {number[]} */ text, /** @type {number} */ room) => {
        const tokens = text.slice(-1);
        while (tokens.length <= Math.min(this.count, room)) {
          const outputs = await this.engine.run({ tokens: tokens.slice(-1), pastLen: text.length + tokens.length - 2 });
          tokens.push(outputs.id(0));
          if (this.threshold && outputs.probability(0) < this.threshold) break;
        }
        return chain(tokens);
      },
    };
  }
}

/** A drafter that asks prompt lookup first; where that finds nothing, an engine drafts one token, and lookup is asked again. */
class Cascade {
  /**
   * @param {Record<string, number>} parameters
   * @param {{ draft: Engine }} engines
   */
  constructor(parameters, { draft }) {
    this.engine = draft;
    this.count = parameters.num_speculative_tokens;
    this.copied = parameters.prompt_lookup_num_tokens;
    this.longest = parameters.max_matching_ngram_size;
    this.shortest = parameters.min_matching_ngram_size;
    this.threshold = parameters.assistant_confidence_threshold ?? 0;
  }

  open() {
    const index = new NgramIndex(this.longest);
    return {
      propose: async (/** @type {number[]} */ text, /** @type {number} */ room) => {
        const tokens = text.slice(-1);
        let copy = index.after(text, this.copied, [], this.shortest);
        while (!copy.length && tokens.length <= Math.min(this.count, room)) {
          const outputs = await this.engine.run({ tokens: tokens.slice(-1), pastLen: text.length + tokens.length - 2 });
          tokens.push(outputs.id(0));
          if (this.threshold && outputs.probability(0) < this.threshold) break;
          copy = index.after(text, this.copied, tokens.slice(1), this.shortest);
        }
        return chain([...tokens, ...copy].slice(0, 1 + room));
      },
    };
  }
}

const LOOKUP = ["prompt_lookup_num_tokens", "max_matching_ngram_size"];
const THRESHOLD = ["assistant_confidence_threshold"];

/** @type {Record<string, Kind>} */
export const DRAFTERS = {
  plain: { make: Plain, parameters: [], engines: [], version: 1 },
  "prompt-lookup": { make: PromptLookup, parameters: LOOKUP, engines: [], version: 1 },
  "recycled-lookup": { make: RecycledLookup, parameters: LOOKUP, engines: [], version: 1 },
  "token-recycling": { make: TokenRecycling, parameters: ["tree", "vocab_size"], engines: [], version: 1 },
  "layer-skip": {
    make: LayerSkip,
    parameters: ["num_speculative_tokens", ...THRESHOLD],
    optional: THRESHOLD,
    engines: ["draft"],
    version: 1,
  },
  cascade: {
    make: Cascade,
    parameters: ["num_speculative_tokens", "min_matching_ngram_size", ...LOOKUP, ...THRESHOLD],
    optional: THRESHOLD,
    engines: ["draft"],
    version: 1,
  },
  "early-exit": { make: TreeDraft, parameters: ["tree"], engines: ["draft"], version: 1 },
};
