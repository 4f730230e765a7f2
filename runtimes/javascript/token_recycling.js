import { shape } from "./tree.js";

/** @typedef {import("./tree.js").Draft} Draft */

/**
 * A drafter of one tree, whose nodes get the successors that their parents' tokens had when the target last ran them
 * (Luo et al. 2024, arXiv:2408.08696).
 */
export class TokenRecycling {
  /** @type {Map<number, number[]>} */
  #successors = new Map();

  /** @param {{ tree: number[] }} parameters the parents that are baked into the engine that verifies. */
  constructor({ tree }) {
    this.parents = tree;
    this.ranks = shape(tree).ranks;
  }

  open() {
    return {
      propose: (/** @type {number[]} */ text) => {
        const tokens = text.slice(-1);
        for (let slot = 1; slot < this.parents.length; slot++) {
          tokens.push(this.#successors.get(tokens[this.parents[slot]])?.[this.ranks[slot]] ?? 0);
        }
        return { tokens, parents: this.parents };
      },
      observe: (
        /** @type {number[]} */ _text,
        /** @type {Draft} */ draft,
        /** @type {import("./engine.js").Outputs} */ outputs,
      ) => draft.tokens.forEach((token, slot) => this.#successors.set(token, outputs.topIds(slot))),
    };
  }
}
