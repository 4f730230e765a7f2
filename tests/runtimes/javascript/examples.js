// The examples of docs/bundle-examples.md.

import { readFileSync } from "node:fs";

const PAGE = readFileSync(new URL("../../../docs/bundle-examples.md", import.meta.url), "utf8");

/**
 * Returns the text of an example's block.
 * @param {number} number
 */
export function exampleText(number) {
  const found = PAGE.match(new RegExp(`\`\`\`json title="${number}"\n(.*?)\`\`\``, "s"));
  if (!found) throw new Error(`docs/bundle-examples.md has no example ${number}`);
  return found[1];
}

/** @param {number} number */
export const example = (number) => JSON.parse(exampleText(number));
