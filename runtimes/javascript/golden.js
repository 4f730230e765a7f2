// Golden outputs: prompts, and the tokens that must follow. docs/bundle-format.md, "Golden outputs".

import { SpeccError } from "./errors.js";

/** @typedef {{ prompt: string, prompt_ids: number[], token_ids: number[], gaps: number[] }} Case */

/**
 * Reads a bundle's golden cases.
 * @param {import("./bundle.js").Bundle} bundle
 * @returns {Promise<Case[]>}
 */
export async function readGolden(bundle) {
  const lines = new TextDecoder().decode(await bundle.read("golden.jsonl")).split("\n");
  const cases = lines.filter((line) => line.trim()).map((line) => JSON.parse(line));
  if (!cases.length) throw new SpeccError(`golden.jsonl of ${bundle.source.name} has no golden cases; compile the bundle again`);
  return cases;
}

/**
 * Compares an answer with the golden one, up to the first difference.
 * @param {Case} golden
 * @param {number[]} answer
 * @param {number} tolerance a gap of logits below which either token is right.
 * @returns {"identical" | "near-tie" | "diverged"}
 */
export function judge({ token_ids: tokens, gaps }, answer, tolerance) {
  const at = tokens.findIndex((token, i) => token !== answer[i]);
  if (at < 0) return "identical";
  return at < answer.length && gaps[at] < tolerance ? "near-tie" : "diverged";
}

/**
 * Decodes each golden prompt by each recipe that the model can run.
 * @param {import("./session.js").Model} model
 * @param {string[]} recipes
 */
export async function* replay(model, recipes = model.recipes) {
  const cases = await readGolden(model.bundle);
  const session = model.session();
  for (const recipe of recipes) {
    for (const [number, golden] of cases.entries()) {
      /** @type {number[]} */
      const answer = [];
      const steps = session.steps(golden.prompt_ids, { recipe, maxNewTokens: golden.token_ids.length });
      let step = await steps.next();
      for (; !step.done; step = await steps.next()) answer.push(...step.value.tokens);
      yield { recipe, number, answer, stats: step.value, verdict: judge(golden, answer, model.bundle.tolerance) };
    }
  }
}
