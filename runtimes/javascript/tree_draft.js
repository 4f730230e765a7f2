import { shape } from "./tree.js";

/**
 * A call that runs some slots of a tree, behind the rows that earlier calls left.
 * @typedef {object} Growth
 * @property {number[]} slots
 * @property {number} rows the rows of the tree before the call.
 * @property {Set<number>[]} sees for each slot, the rows of the tree that it sees.
 */

/**
 * A drafter that fills one tree, level by level, with the likeliest tokens of a frontier engine over the target's rows.
 * A child of rank r gets the token of rank r.
 */
export class TreeDraft {
  /**
   * @param {{ tree: number[] }} parameters the parents that are baked into the engine that verifies.
   * @param {{ draft: import("./engine.js").Engine }} engines
   */
  constructor({ tree }, { draft }) {
    this.engine = draft;
    this.parents = tree;
    const { ranks, depths, children } = shape(tree);
    this.ranks = ranks;
    this.depths = depths;
    this.growths = growths(tree, depths, children, draft.slots);
  }

  open() {
    return {
      propose: async (/** @type {number[]} */ text) => {
        const pending = text[text.length - 1];
        const tokens = this.parents.map(() => pending);
        for (const { slots, rows, sees } of this.growths) {
          const outputs = await this.engine.run({
            tokens: slots.map((slot) => tokens[slot]),
            pastLen: text.length - 1 + rows,
            depths: slots.map((slot) => this.depths[slot] - rows),
            // Committed rows are seen. A number below zero is such a row.
            sees: (i, row) => row < text.length - 1 || sees[i].has(row - text.length + 1),
          });
          slots.forEach((slot, i) => {
            const likeliest = outputs.topIds(i);
            this.parents.forEach((parent, child) => {
              if (parent === slot) tokens[child] = likeliest[this.ranks[child]] ?? pending;
            });
          });
        }
        return { tokens, parents: this.parents };
      },
    };
  }
}

/**
 * Plans the calls that fill a tree.
 * @param {number[]} parents
 * @param {number[]} depths
 * @param {number[]} children how many children each slot has.
 * @param {number} width the slots of the engine.
 */
function growths(parents, depths, children, width) {
  /** @type {Growth[]} */
  const calls = [];
  /** @type {Map<number, Set<number>>} */
  const visible = new Map([[-1, new Set()]]);
  let rows = 0;
  for (let depth = 0; depth < Math.max(...depths); depth++) {
    const level = parents.map((_, slot) => slot).filter((slot) => depths[slot] === depth && children[slot]);
    for (let start = 0; start < level.length; start += width) {
      const slots = level.slice(start, start + width);
      const sees = slots.map((slot, i) => new Set([.../** @type {Set<number>} */ (visible.get(parents[slot])), rows + i]));
      slots.forEach((slot, i) => visible.set(slot, sees[i]));
      calls.push({ slots, rows, sees });
      rows += slots.length;
    }
  }
  return calls;
}
