// The golden cases of a bundle in a directory.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { nearTie, parseGolden } from "../javascript/golden.js";

/**
 * Reads the golden cases of a bundle, how near two logits are for either to be right, and the recipes of the manifest.
 * @param {string} bundle its directory.
 */
export function readGolden(bundle) {
  const file = join(bundle, "golden.jsonl");
  const { model, recipes, near_tie_tolerance = Infinity } = JSON.parse(readFileSync(join(bundle, "manifest.json"), "utf8"));
  const tolerance = nearTie(near_tie_tolerance);
  return { cases: parseGolden(readFileSync(file, "utf8"), file, model, tolerance), tolerance, recipes };
}
