// Golden cases of a bundle, checked: a test of none, or of those of another model, would prove nothing.

import { readFileSync } from "node:fs";
import { join } from "node:path";

const NEAR_TIE = 0.001; // The widest gap of a near-tie, as for specc test.

/** @typedef {{ prompt_ids: number[], token_ids: number[], gaps: number[] }} Case */

/**
 * Reads the golden cases of a bundle, and how near two logits are for either to be right.
 * @param {string} bundle its directory.
 * @returns {{ cases: Case[], tolerance: number }}
 */
export function readGolden(bundle) {
  const file = join(bundle, "golden.jsonl");
  const { model, near_tie_tolerance: tolerance } = JSON.parse(readFileSync(join(bundle, "manifest.json"), "utf8"));
  const lines = readFileSync(file, "utf8").split("\n");
  const cases = lines.filter((line) => line.trim()).map((line) => JSON.parse(line));
  const fault = cases.length ? cases.map((each, number) => faultOf(each, number, model)).find(Boolean) : "there are no golden cases";
  if (fault) throw new Error(`${file}: ${fault}; compile the bundle again`);
  return { cases, tolerance: Math.min(tolerance, NEAR_TIE) };
}

/**
 * Says why a case cannot be one of a model.
 * @param {Case} golden
 * @param {number} number
 * @param {{ context: number, vocab_size: number }} model
 */
function faultOf({ prompt_ids, token_ids, gaps }, number, { context, vocab_size }) {
  const tokens = [...prompt_ids, ...token_ids];
  const name = `golden case ${number} has`;
  if (!prompt_ids.length || !token_ids.length || tokens.length > context) {
    return `${name} ${prompt_ids.length} and ${token_ids.length} tokens, of a context of ${context}`;
  }
  if (gaps.length !== token_ids.length) return `${name} ${gaps.length} gaps for ${token_ids.length} tokens`;
  const other = tokens.find((token) => !(token >= 0 && token < vocab_size));
  return other === undefined ? "" : `${name} token ${other}, and the vocabulary has ${vocab_size}`;
}
