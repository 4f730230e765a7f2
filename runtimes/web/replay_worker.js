// Replays golden outputs in a browser. `?recipes=A,B` names recipes, `threads` the threads of an engine.

import { firstLine } from "../javascript/errors.js";
import { leftOut, replay } from "../javascript/golden.js";
import { openModel } from "./model.js";

const parameters = new URLSearchParams(self.location.search);

try {
  const model = await openModel("/bundle", { threads: Number(parameters.get("threads") ?? 1) });
  const recipes = parameters.get("recipes")?.split(",") ?? model.recipes;
  self.postMessage({ leftOut: leftOut(model.bundle.recipes, model.recipes, model.runtime.name) });
  for await (const { recipe, number, answer, stats, verdict } of replay(model, recipes)) {
    const { seconds, prefillSeconds, meanAcceptanceLength } = stats;
    self.postMessage({ recipe, number, answer, verdict, seconds, prefillSeconds, meanAcceptanceLength });
  }
  self.postMessage({ done: true });
} catch (error) {
  self.postMessage({ error: firstLine(error) });
}
