// Without libspecc: the loop of runtimes/javascript over onnxruntime-node, behind the functions of library.js.

import { readFile } from "node:fs/promises";
import { Validator } from "@cfworker/json-schema";

import { openBundle } from "../javascript/bundle.js";
import { firstLine } from "../javascript/errors.js";
import { FolderSource } from "../javascript/folder_source.js";
import { Model } from "../javascript/session.js";
import { validator } from "../javascript/validate.js";
import { OnnxRuntime } from "./onnxruntime.js";

const PACKAGE = "onnxruntime-node";
const SCHEMA = new URL("../javascript/manifest.schema.json", import.meta.url);

/** @typedef {{ session: import("../javascript/session.js").Session, isCancelled: boolean }} Handle */

/**
 * Loads onnxruntime-node.
 * @param {Error} reason why there is no libspecc.
 */
export async function loadFallback(reason) {
  let ort;
  try {
    ort = await import(PACKAGE);
  } catch (error) {
    throw new Error(`${reason.message}; or install ${PACKAGE} (${firstLine(error)})`);
  }
  const { version } = JSON.parse(await readFile(new URL(import.meta.resolve(`${PACKAGE}/package.json`)), "utf8"));

  return {
    version: () => `${PACKAGE} ${version}`,

    /**
     * Opens a bundle.
     * @param {string} path
     * @param {string | null} _library libspecc's; the package has its own ONNX Runtime.
     * @param {number} threads
     */
    async openModel(path, _library, threads) {
      const schema = JSON.parse(await readFile(SCHEMA, "utf8"));
      const bundle = await openBundle(new FolderSource(path), validator(Validator, schema));
      return new Model(bundle, new OnnxRuntime(ort, version, path, threads), { context: bundle.model.context });
    },

    recipe: (/** @type {Model} */ model, /** @type {number} */ index) => model.recipes[index] ?? null,
    openSession: (/** @type {Model} */ model) => ({ session: model.session(), isCancelled: false }),
    closeSession() {},
    cancel: (/** @type {Handle} */ handle) => void (handle.isCancelled = true),
    closeModel: (/** @type {Model} */ model) => model.close(),

    /**
     * Decodes a whole answer.
     * @param {Handle} handle
     * @param {BigInt64Array} prompt
     * @param {string | null} recipe
     * @param {number} maxNewTokens
     */
    async generateAll(handle, prompt, recipe, maxNewTokens) {
      /** @type {number[]} */
      const tokens = [];
      const counts = await this.generate(handle, prompt, recipe, maxNewTokens, (step) => tokens.push(...step) > 0);
      return { tokens, counts };
    },

    /**
     * Decodes an answer.
     * @param {Handle} handle
     * @param {BigInt64Array} prompt
     * @param {string | null} recipe
     * @param {number} maxNewTokens
     * @param {(tokens: number[]) => boolean} onTokens gets the tokens of each step, and returns whether to go on.
     */
    async generate(handle, prompt, recipe, maxNewTokens, onTokens) {
      handle.isCancelled = false;
      let isRead = true;
      const isWanted = () => isRead && !handle.isCancelled;
      const steps = handle.session.steps(Array.from(prompt, Number), { recipe: recipe ?? undefined, maxNewTokens, isWanted });
      for (;;) {
        const { done, value } = await steps.next();
        if (done) return counts(value);
        isRead = onTokens(value.tokens);
      }
    },
  };
}

/**
 * Returns what happened by the names of specc.h.
 * @param {import("../javascript/session.js").Stats} stats
 */
function counts(stats) {
  return {
    recipe: stats.recipe,
    new_tokens: stats.newTokens,
    drafts: stats.drafts,
    drafted: stats.drafted,
    accepted: stats.accepted,
    target_calls: stats.targetCalls,
    prefill_seconds: stats.prefillSeconds,
    seconds: stats.seconds,
    mean_acceptance_length: stats.meanAcceptanceLength,
  };
}
