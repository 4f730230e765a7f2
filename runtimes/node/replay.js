#!/usr/bin/env node
// Replays a bundle's golden outputs by every recipe that libspecc has, or onnxruntime-node where there is no libspecc:
//
//   node replay.js BUNDLE [--json]
//
// It prints a line for each recipe. With --json it prints first a line for each recipe that it leaves out, and then one for
// each recipe and case, as specc test --runtime reads them.
// The exit status is 1 if a recipe diverged, and 2 if the bundle cannot be used. Engines have one thread, so that
// processor seconds compare.

import { judge, leftOut, nearTie, readGolden } from "../javascript/golden.js";
import { openFolder } from "./folder.js";
import { open } from "./index.js";

function processorSeconds() {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
}

/**
 * Prints a line, and waits until it is written. Throws if it cannot be.
 * @param {string} line
 */
async function print(line) {
  const error = await new Promise((resolve) => process.stdout.write(`${line}\n`, resolve));
  if (error) throw new Error(`cannot write the output (${error.message}); free some space, or write it elsewhere`);
}

/**
 * Replays a bundle.
 * @param {string} bundle
 * @param {boolean} json
 */
async function replay(bundle, json) {
  const model = await open(bundle, { threads: 1 });
  try {
    return await replayBy(model, bundle, json);
  } finally {
    await model.close();
  }
}

/**
 * Replays a bundle by a model of it.
 * @param {import("./index.d.ts").Model} model
 * @param {string} bundle
 * @param {boolean} json
 */
async function replayBy(model, bundle, json) {
  if (!json) await print(`by ${model.runtime}`);
  const folder = await openFolder(bundle);
  const [cases, tolerance] = [await readGolden(folder), nearTie(folder.tolerance)];
  const others = leftOut(folder.recipes, model.recipes, model.runtime);
  for (const other of json ? others : []) await print(JSON.stringify(other));
  const session = model.session();
  let diverged = false;
  for (const recipe of model.recipes) {
    const counts = { identical: 0, "near-tie": 0, diverged: 0 };
    let seconds = 0;
    let tokens = 0;
    for (const [number, golden] of cases.entries()) {
      const start = processorSeconds();
      /** @type {number[]} */
      const answer = [];
      const steps = session.stream(golden.prompt_ids, { maxNewTokens: golden.token_ids.length, recipe });
      let step = await steps.next();
      for (; !step.done; step = await steps.next()) answer.push(...step.value);
      seconds += processorSeconds() - start;
      tokens += answer.length;
      counts[judge(golden, answer, tolerance)]++;
      if (!json) continue;
      const { seconds: time, meanAcceptanceLength } = step.value;
      const line = { recipe, case: number, token_ids: answer, seconds: time, mean_acceptance_length: meanAcceptanceLength };
      await print(JSON.stringify(line));
    }
    diverged ||= counts.diverged > 0;
    const verdicts = Object.entries(counts).map(([verdict, count]) => `${count} ${verdict}`);
    const speed = `${(tokens / seconds).toFixed(1)} tokens per processor second`;
    if (!json) await print(`${recipe.padEnd(22)} ${verdicts.join(", ")}, ${speed}`);
  }
  for (const { recipe, left_out } of json ? [] : others) await print(`${recipe.padEnd(22)} not replayed: ${left_out}`);
  return diverged ? 1 : 0;
}

const USAGE = "node replay.js BUNDLE [--json]";
process.stdout.on("error", () => {}); // `print` gets it, too.
const [bundle, ...options] = process.argv.slice(2);
try {
  const asksForHelp = ["--help", "-h"].some((option) => process.argv.slice(2).includes(option));
  if (asksForHelp) await print(`usage: ${USAGE}`);
  else if (!bundle || bundle.startsWith("-") || options.length > 1 || (options.length && options[0] !== "--json")) {
    throw new Error(`give a bundle: ${USAGE}`);
  } else process.exitCode = await replay(bundle, options.length > 0);
} catch (error) {
  console.error(`specc-replay-node: error: ${/** @type {Error} */ (error).message.split("\n")[0]}`);
  process.exitCode = 2;
}
