// Which recipes of a bundle this runtime can run, and which one runs in place of another.

import { DRAFTERS } from "./drafters.js";
import { lack } from "./engine.js";
import { SpeccError } from "./errors.js";

const ACCEPTANCE = { match: 1 }; // versions by rule

/**
 * @typedef {import("./bundle.js").Bundle} Bundle
 * @typedef {import("./bundle.js").Recipe} Recipe
 * @typedef {import("./engine.js").Runtime} Runtime
 */

/**
 * Returns what a recipe needs that is lacking, or null.
 * @param {Bundle} bundle
 * @param {Recipe} recipe
 * @param {Runtime} runtime
 * @returns {string | null}
 */
export function lacking(bundle, recipe, runtime) {
  const kind = Object.hasOwn(DRAFTERS, recipe.drafter) ? DRAFTERS[recipe.drafter] : null;
  if (!kind) return `the drafter ${recipe.drafter}, which this runtime does not have`;
  if (recipe.drafter_version !== kind.version) {
    return `version ${recipe.drafter_version} of the drafter ${recipe.drafter}, and this runtime has version ${kind.version}`;
  }
  const names = Object.keys(recipe.parameters);
  const unknown = names.find((name) => !kind.parameters.includes(name));
  if (unknown !== undefined) return `the parameter ${unknown} of the drafter ${recipe.drafter}, which this runtime does not have`;
  const missing = kind.parameters.find((name) => !names.includes(name) && !kind.optional?.includes(name));
  if (missing !== undefined) return `the parameter ${missing}, which the bundle does not give`;
  const version = ACCEPTANCE[/** @type {keyof typeof ACCEPTANCE} */ (recipe.acceptance)];
  if (recipe.acceptance_version !== version) {
    return `version ${recipe.acceptance_version} of the acceptance rule ${recipe.acceptance}, which this runtime does not have`;
  }
  for (const name of [...recipe.verify, ...kind.engines.map((role) => recipe.engines[role])]) {
    const engine = bundle.engine(name);
    if (!engine) return `the engine ${name} of the backend onnx, which the bundle does not have`;
    const need = lack(bundle, engine, runtime);
    if (need) return need;
  }
  return null;
}

/**
 * Returns the recipes that can run.
 * @param {Bundle} bundle
 * @param {Runtime} runtime
 */
export function runnable(bundle, runtime) {
  return bundle.recipes.filter((recipe) => lacking(bundle, recipe, runtime) === null);
}

/**
 * Returns a recipe by its name.
 * @param {Bundle} bundle
 * @param {string} name
 */
function find(bundle, name) {
  const recipe = bundle.recipe(name);
  if (recipe) return recipe;
  throw new SpeccError(`the bundle has no recipe '${name}', only ${bundle.recipes.map((each) => each.name).join(", ")}`);
}

/**
 * Refuses a recipe that cannot run. A test of the one that runs in its place would prove nothing of it.
 * @param {Bundle} bundle
 * @param {Runtime} runtime
 * @param {string} name
 */
export function checkRunnable(bundle, runtime, name) {
  const reason = lacking(bundle, find(bundle, name), runtime);
  if (reason) throw new SpeccError(`the recipe ${name} needs ${reason}; name another one`);
}

/**
 * Returns a recipe by its name. If this runtime cannot run it, it returns the fastest one that it can run, as the compiler
 * measured them, and a note that says so.
 * @param {Bundle} bundle
 * @param {Runtime} runtime
 * @param {string} [name] default: the bundle's default recipe.
 * @returns {{ recipe: Recipe, note: string | null }}
 */
export function choose(bundle, runtime, name = bundle.defaultRecipe) {
  const recipe = find(bundle, name);
  const reason = lacking(bundle, recipe, runtime);
  if (!reason) return { recipe, note: null };
  const [best] = runnable(bundle, runtime).sort((a, b) => b.speedup - a.speedup);
  if (!best) throw new SpeccError(`no recipe of the bundle can run: ${name} needs ${reason}; compile it with --lowering fast`);
  return { recipe: best, note: `the recipe ${name} needs ${reason}; ${best.name} runs instead` };
}
