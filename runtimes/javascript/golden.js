// Golden outputs: prompts, and the tokens that must follow. docs/bundle-format.md, "Golden outputs".

import { SpeccError } from "./errors.js";
import { checkRunnable } from "./recipes.js";

/** @typedef {{ prompt: string, prompt_ids: number[], token_ids: number[], gaps: number[] }} Case */

const NEAR_TIE = 0.001; // The widest gap of a near-tie, as for specc test.

/**
 * Reads golden cases, and checks them: a test of none, of those of another model, or of those that any answer passes would
 * prove nothing.
 * @param {string} text
 * @param {string} file its name, for errors.
 * @param {{ context: number, vocab_size: number }} model
 * @param {number} tolerance as `nearTie` returns it.
 * @returns {Case[]}
 */
export function parseGolden(text, file, model, tolerance) {
  const cases = text.split("\n").filter((line) => line.trim()).map(parsed);
  const fault = cases.map((each, number) => faultOf(each, number, model, tolerance)).find(Boolean) ?? faultOfAll(cases);
  if (fault) throw new SpeccError(`${file}: ${fault}; compile the bundle again`);
  return cases;
}

/**
 * Returns the content of a line of JSON, or null for another text.
 * @param {string} line
 */
function parsed(line) {
  try {
    return JSON.parse(line);
  } catch {
    return null;
  }
}

/**
 * Returns how near two logits are for either to be right: what a bundle says, but no more than specc test admits.
 * @param {number} tolerance
 */
export function nearTie(tolerance) {
  return Math.min(tolerance, NEAR_TIE);
}

/**
 * Says why a case cannot be one of a model, or proves nothing.
 * @param {Case | null} golden
 * @param {number} number
 * @param {{ context: number, vocab_size: number }} model
 * @param {number} tolerance a gap of logits below which either token is right.
 */
function faultOf(golden, number, { context, vocab_size }, tolerance) {
  const { prompt_ids, token_ids, gaps } = /** @type {Partial<Case>} */ (golden ?? {});
  const name = `golden case ${number} has`;
  if (!Array.isArray(prompt_ids) || !Array.isArray(token_ids) || !Array.isArray(gaps)) return `${name} no prompt_ids, token_ids and gaps`;
  const tokens = [...prompt_ids, ...token_ids];
  if (!prompt_ids.length || !token_ids.length || tokens.length > context) {
    return `${name} ${prompt_ids.length} and ${token_ids.length} tokens, of a context of ${context}`;
  }
  if (gaps.length !== token_ids.length) return `${name} ${gaps.length} gaps for ${token_ids.length} tokens`;
  const other = tokens.findIndex((token) => !(Number.isInteger(token) && token >= 0 && token < vocab_size));
  if (other >= 0) return `${name} token ${tokens[other]}, and the vocabulary has ${vocab_size}`;
  const wrong = gaps.findIndex((gap) => !(Number.isFinite(gap) && gap >= 0));
  if (wrong >= 0) return `${name} the gap ${gaps[wrong]}; gaps are 0 or more`;
  const ties = gaps.filter((gap) => gap < tolerance).length;
  if (2 * ties > gaps.length) return `${name} ${ties} of ${gaps.length} gaps below the tolerance of ${tolerance}, so nearly any answer would pass`;
  return "";
}

/**
 * Says why cases of which each is right prove nothing together, or returns an empty text.
 * @param {Case[]} cases
 */
function faultOfAll(cases) {
  /** @type {Map<string, number>} */
  const numbers = new Map();
  for (const [number, { prompt_ids }] of cases.entries()) {
    const first = numbers.get(prompt_ids.join());
    if (first !== undefined) return `golden case ${number} has the prompt of golden case ${first}, and a copy proves nothing`;
    numbers.set(prompt_ids.join(), number);
  }
  return cases.length ? "" : "there are no golden cases";
}

/**
 * Returns a line of specc test --runtime for each recipe that a runtime leaves out.
 * @param {Partial<import("./bundle.js").Recipe>[]} recipes those of a manifest.
 * @param {string[]} names those that the runtime has.
 * @param {string} runtime
 */
export function leftOut(recipes, names, runtime) {
  return recipes
    .filter(({ name = "" }) => !names.includes(name))
    .map(({ name = "", drafter, drafter_version = 1, acceptance = "match", acceptance_version = 1, parameters = {} }) => {
      const values = Object.keys(parameters).join(", ");
      const kind = `drafter ${drafter}, version ${drafter_version}, with rule ${acceptance}, version ${acceptance_version}`;
      return { recipe: name, left_out: `${runtime} lacks ${kind}${values && `, and parameters ${values}`}` };
    });
}

/**
 * Reads the golden cases of a bundle.
 * @param {import("./bundle.js").Bundle} bundle
 * @returns {Promise<Case[]>}
 */
export async function readGolden(bundle) {
  const text = new TextDecoder().decode(await bundle.read("golden.jsonl"));
  return parseGolden(text, `golden.jsonl of ${bundle.source.name}`, bundle.model, nearTie(bundle.tolerance));
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
 * Decodes each golden prompt by recipes. One that cannot run is refused before anything is decoded.
 * @param {import("./session.js").Model} model
 * @param {string[]} recipes names; default: those that the model can run.
 */
export async function* replay(model, recipes = model.recipes) {
  for (const recipe of recipes) checkRunnable(model.bundle, model.runtime, recipe);
  const cases = await readGolden(model.bundle);
  const session = model.session();
  for (const recipe of recipes) {
    for (const [number, golden] of cases.entries()) {
      /** @type {number[]} */
      const answer = [];
      const steps = session.steps(golden.prompt_ids, { recipe, maxNewTokens: golden.token_ids.length });
      let step = await steps.next();
      for (; !step.done; step = await steps.next()) answer.push(...step.value.tokens);
      yield { recipe, number, answer, stats: step.value, verdict: judge(golden, answer, nearTie(model.bundle.tolerance)) };
    }
  }
}
