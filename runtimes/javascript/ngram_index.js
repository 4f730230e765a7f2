/** Where each n-gram of a text that grows ended last. */
export class NgramIndex {
  /** @type {Map<string, number>} */
  #lastEnd = new Map();
  #indexed = 0; // The index covers so many tokens.

  /** @param {number} longest tokens of the longest n-gram that is looked up. */
  constructor(longest) {
    this.longest = longest;
  }

  /**
   * Returns what followed the last tokens where they occur earlier, or nothing. A copy that reaches the end of the text
   * goes on with itself (Saxena 2023, prompt lookup decoding; docs/bundle-format.md has the algorithm).
   * @param {number[]} text tokens. Later calls have a text that begins with it.
   * @param {number} count tokens to copy. After a shorter match fewer are copied.
   * @param {number[]} drafted tokens that are drafted already, after the text.
   * @param {number} shortest tokens that must match at least.
   */
  after(text, count, drafted = [], shortest = 1) {
    this.#add(text, drafted.length ? text.length : text.length - 1); // The last n-gram must not find itself.
    const tail = [...text.slice(-this.longest), ...drafted];
    for (let size = Math.min(this.longest, tail.length); size >= shortest; size--) {
      const end = this.#lastEnd.get(tail.slice(-size).join());
      if (end === undefined) continue;
      const copied = Math.max(1, Math.floor(count / (1 + this.longest - size)));
      const source = [...text.slice(end, end + copied), ...drafted];
      return Array.from({ length: copied }, (_, i) => source[i % source.length]);
    }
    return [];
  }

  /**
   * @param {number[]} text
   * @param {number} end
   */
  #add(text, end) {
    for (let last = this.#indexed + 1; last <= end; last++) {
      for (let size = 1; size <= Math.min(this.longest, last); size++) {
        this.#lastEnd.set(text.slice(last - size, last).join(), last);
      }
    }
    this.#indexed = Math.max(this.#indexed, end);
  }
}
