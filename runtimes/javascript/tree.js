// Drafts are trees of tokens: slot 0 is the pending token, and each other slot names its parent before it.

/**
 * Tokens that a drafter proposes, the pending one first.
 * @typedef {object} Draft
 * @property {number[]} tokens
 * @property {number[]} parents the parent of each slot; -1 for slot 0.
 */

/**
 * Returns a draft whose tokens follow each other.
 * @param {number[]} tokens
 * @returns {Draft}
 */
export function chain(tokens) {
  return { tokens, parents: tokens.map((_, slot) => slot - 1) };
}

/**
 * Returns the rank of each slot among its siblings, and its distance from slot 0.
 * @param {number[]} parents
 */
export function shape(parents) {
  /** @type {number[]} */
  const children = parents.map(() => 0);
  const ranks = parents.map((parent) => (parent < 0 ? 0 : children[parent]++));
  /** @type {number[]} */
  const depths = [];
  for (const parent of parents) depths.push(parent < 0 ? 0 : depths[parent] + 1);
  return { children, ranks, depths };
}

/**
 * Returns the path of slots whose tokens are the target's own, by the acceptance rule `match`.
 * @param {Draft} draft
 * @param {(slot: number) => number} answer returns the target's token after a slot.
 */
export function accept({ tokens, parents }, answer) {
  let paths = [[0]];
  for (;;) {
    const path = paths[0];
    const token = answer(path[path.length - 1]);
    /** @type {number[][]} */
    const longer = []; // Several children may hold one token. Then all of them are followed.
    for (const each of paths) {
      for (let slot = each[each.length - 1] + 1; slot < tokens.length; slot++) {
        if (parents[slot] === each[each.length - 1] && tokens[slot] === token) longer.push([...each, slot]);
      }
    }
    if (!longer.length) return { path, token };
    paths = longer;
  }
}
