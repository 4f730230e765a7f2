// A bundle: its manifest, and its files, each of which is checked when it is first read. docs/bundle-format.md.

import { SpeccError, firstLine } from "./errors.js";
import { fault } from "./json_text.js";

const SCHEMAS = [2, 3];
const DIGITS = 64; // of the digest of the manifest
const BEHIND = 4; // bytes behind them: `"`, a line feed, `}` and a line feed
const ZERO = 48; // the character 0
const MOST_SIZE = 2 ** 31 - 1;
const WEIGHTS = "weights.safetensors"; // the file of a manifest that names none

/**
 * Where a bundle's files come from.
 * @typedef {object} Source
 * @property {string} name what messages call the bundle.
 * @property {(file: string, expected?: FileSpec, progress?: (bytes: number) => void) => Promise<Uint8Array>} read reads a
 *   whole file. `expected` is what the manifest says of it. An error says in one line why the file cannot be had.
 * @property {(file: string) => Promise<void>} [forget] drops a copy of a file that turned out to be wrong.
 *
 * @typedef {{ bytes: number, sha256: string }} FileSpec
 * @typedef {{ name: string, dtype: string, shape: number[] }} Tensor
 *
 * @typedef {object} Topology
 * @property {number[]} [parents] of a tree that is baked in.
 * @property {number} [slots]
 * @property {number} [span] of a frontier.
 *
 * @typedef {object} EngineSpec
 * @property {string} name
 * @property {string} file
 * @property {string} weights
 * @property {Record<string, string>} needs
 * @property {Tensor[]} inputs
 * @property {Tensor[]} outputs
 * @property {{ topology: Topology, cache: string, last_row: boolean }} block
 *
 * @typedef {object} Recipe
 * @property {string} name
 * @property {string} drafter
 * @property {string[]} verify
 * @property {string} acceptance
 * @property {Record<string, string>} engines
 * @property {Record<string, any>} parameters
 * @property {number} drafter_version
 * @property {number} acceptance_version
 * @property {number} speedup as the compiler measured it beside plain decoding; 0 if it did not.
 *
 * @typedef {object} CacheSpec
 * @property {number} capacity
 * @property {Record<string, [number, number]>} layers heads and size of each layer, by its name.
 * @property {string} dtype
 */

/** A bundle whose manifest was checked. */
export class Bundle {
  /** @type {Map<string, Promise<Uint8Array>>} */
  #weights = new Map();

  /**
   * @param {Source} source
   * @param {any} manifest
   */
  constructor(source, manifest) {
    this.source = source;
    this.manifest = manifest;
    /** @type {Record<string, FileSpec>} */
    this.files = manifest.files;
    /** @type {Record<string, CacheSpec>} */
    this.caches = manifest.caches;
    this.model = manifest.model;
    /** @type {number} */
    this.tolerance = manifest.near_tie_tolerance ?? 0.001;
    /** @type {EngineSpec[]} */
    this.engines = manifest.engines
      .filter((/** @type {any} */ each) => each.backend === "onnx" && (each.block.lanes ?? 1) === 1)
      .map((/** @type {any} */ each) => ({ ...each, needs: each.needs ?? {}, weights: each.weights || this.weightsFile }));
    /** @type {Recipe[]} */
    this.recipes = manifest.recipes.map((/** @type {any} */ each) => ({
      engines: {},
      parameters: {},
      acceptance: "match",
      drafter_version: 1,
      acceptance_version: 1,
      ...each,
      speedup: (manifest.measured ?? []).find((/** @type {any} */ row) => row.recipe === each.name)?.speedup ?? 0,
    }));
    /** @type {string} */
    this.defaultRecipe = manifest.default_recipe;
  }

  /** @returns {string} */
  get weightsFile() {
    return this.manifest.weights ?? WEIGHTS;
  }

  /**
   * Returns an engine of the backend onnx, or null.
   * @param {string} name
   */
  engine(name) {
    return this.engines.find((engine) => engine.name === name) ?? null;
  }

  /**
   * Returns a recipe, or null.
   * @param {string} name
   */
  recipe(name) {
    return this.recipes.find((recipe) => recipe.name === name) ?? null;
  }

  /**
   * Reads a file, and checks its size and its digest.
   * @param {string} file
   * @param {(bytes: number) => void} [progress] is called with the number of bytes that are there.
   */
  async read(file, progress) {
    const expected = this.files[file];
    if (!expected) throw new SpeccError(`the bundle ${this.source.name} has no file ${file}; compile it again`);
    const content = await this.source.read(file, expected, progress);
    if (content.length !== expected.bytes) {
      await this.source.forget?.(file);
      const sizes = `${content.length} bytes, and the manifest says ${expected.bytes}`;
      throw new SpeccError(`${file} of ${this.source.name} has ${sizes}; copy the bundle again`);
    }
    if ((await sha256(content)) !== expected.sha256) {
      await this.source.forget?.(file);
      throw new SpeccError(`${file} of ${this.source.name} was changed; copy the bundle again`);
    }
    return content;
  }

  /**
   * Reads a file of weights, and keeps it for further engines.
   * @param {string} file
   * @param {(bytes: number) => void} [progress]
   */
  weights(file, progress) {
    const reading = this.#weights.get(file) ?? this.read(file, progress);
    this.#weights.set(file, reading);
    reading.catch(() => this.#weights.delete(file));
    return reading;
  }

  /**
   * Reads a file of JSON.
   * @param {string} file
   */
  async json(file) {
    const text = new TextDecoder().decode(await this.read(file));
    try {
      return JSON.parse(text);
    } catch (error) {
      throw new SpeccError(`${file} of ${this.source.name} is not JSON (${firstLine(error)}); compile the bundle again`);
    }
  }

  /** Forgets the weights. */
  close() {
    this.#weights.clear();
  }
}

/**
 * Reads a bundle's manifest and checks it. The other files are checked when they are read.
 * @param {Source} source
 * @param {(manifest: any) => string | null} validate returns what in a manifest of the newest schema is not as
 *   manifest.schema.json says, or null.
 */
export async function openBundle(source, validate) {
  const content = await source.read("manifest.json");
  const refuse = (/** @type {string} */ reason, remedy = "compile the bundle again") => {
    throw new SpeccError(`manifest.json of ${source.name} ${reason}; ${remedy}`);
  };
  let text = "";
  let manifest;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(content);
    manifest = JSON.parse(text);
  } catch {
    refuse("is not JSON", "name a bundle that specc compile wrote");
  }
  if (!Number.isInteger(manifest?.schema)) refuse("has no schema", "name a bundle that specc compile wrote");
  if (!SCHEMAS.includes(manifest.schema)) {
    const remedy = manifest.schema > 3 ? "use a newer runtime" : "compile the bundle again";
    refuse(`has schema ${manifest.schema}, and this runtime reads ${SCHEMAS.join(" and ")}`, remedy);
  }
  const zeroed = content.slice().fill(ZERO, -DIGITS - BEHIND, -BEHIND);
  if ((await sha256(zeroed)) !== text.slice(-DIGITS - BEHIND, -BEHIND)) refuse("was changed");
  const problem = fault(text) ?? validate({ ...manifest, schema: SCHEMAS.at(-1) }) ?? contradiction(manifest);
  if (problem) refuse(`is wrong: ${problem}`);
  return new Bundle(source, manifest);
}

/**
 * Returns which name or number of a manifest contradicts the others, or null.
 * @param {any} manifest
 * @returns {string | null}
 */
function contradiction(manifest) {
  const engines = new Set(manifest.engines.map((/** @type {any} */ each) => each.name));
  for (const file of Object.keys(manifest.files)) {
    if (file.startsWith("/") || file.includes("\\") || `/${file}/`.includes("/../")) return `the path ${file} is not inside the bundle`;
  }
  if (!manifest.recipes.some((/** @type {any} */ each) => each.name === manifest.default_recipe)) {
    return `the default recipe ${manifest.default_recipe} is not in recipes`;
  }
  for (const engine of manifest.engines) {
    const { topology, cache = "target" } = engine.block;
    for (const file of [engine.file, engine.weights || (manifest.weights ?? WEIGHTS), engine.commit || engine.file]) {
      if (!(file in manifest.files)) return `the engine ${engine.name} names the file ${file}, which is not in files`;
    }
    if (!(cache in manifest.caches)) return `the engine ${engine.name} names the cache ${cache}, which is not in caches`;
    const isTree = (/** @type {number} */ parent, /** @type {number} */ slot) => (slot ? parent >= 0 && parent < slot : parent === -1);
    if (topology.parents && !topology.parents.every(isTree)) return `the parents of the engine ${engine.name} are not a tree`;
    for (const { name, shape } of [...engine.inputs, ...engine.outputs]) {
      if (shape.some((/** @type {number} */ size) => size < 1 || size > MOST_SIZE)) return `${name} of the engine ${engine.name} has a size that is not 1 to ${MOST_SIZE}`;
    }
  }
  for (const recipe of manifest.recipes) {
    const missing = [...recipe.verify, ...Object.values(recipe.engines ?? {})].find((name) => !engines.has(name));
    if (missing !== undefined) return `the recipe ${recipe.name} names the engine ${missing}, which is not in engines`;
  }
  return null;
}

/**
 * Returns the SHA-256 of some bytes, in hexadecimal digits.
 * @param {Uint8Array} content
 */
async function sha256(content) {
  if (!globalThis.crypto?.subtle) throw new SpeccError("this page cannot check digests; load it over https, or from localhost");
  const digest = await crypto.subtle.digest("SHA-256", /** @type {any} */ (content));
  return Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
