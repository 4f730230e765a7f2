// Calls of one engine over the rows of one cache. Its tensors are bound once, and rows are written in place.

import { SpeccError } from "./errors.js";

/**
 * What runs the engines' files: ONNX Runtime in some form.
 * @typedef {object} Runtime
 * @property {string} name what messages call it.
 * @property {string} version of ONNX Runtime.
 * @property {(dtype: string, shape: number[]) => Buffer} tensor makes a tensor of zeros.
 * @property {(bundle: import("./bundle.js").Bundle, spec: import("./bundle.js").EngineSpec, progress?: Progress) => Promise<File>} load
 *   loads an engine's file.
 * @property {() => void} [close] frees the tensors.
 *
 * @typedef {(file: string, bytes: number, ofBytes: number) => void} Progress tells how much of a file is there.
 *
 * @typedef {object} Buffer
 * @property {any} data the numbers, which a call reads or writes in place.
 * @property {number[]} shape
 *
 * @typedef {object} File
 * @property {(input: string) => (number | string)[]} dimensions returns the shape of an input: numbers, or names.
 * @property {(inputs: Record<string, Buffer>, outputs: Record<string, Buffer>) => () => void | Promise<void>} bind returns a
 *   function that runs the graph.
 * @property {() => void} close
 *
 * @typedef {object} Call
 * @property {number[]} tokens one for each of the first slots.
 * @property {number} pastLen rows before slot 0.
 * @property {number[]} [parents] of a draft, for an engine that takes them.
 * @property {number[]} [depths] of a frontier's slots: position less `pastLen`.
 * @property {(slot: number, row: number) => boolean} [sees] whether a frontier's slot sees a row. The call's own slots have
 *   the rows from `pastLen` on.
 *
 * @typedef {object} Binding the tensors of one width.
 * @property {Record<string, Buffer>} inputs
 * @property {Record<string, Buffer>} outputs
 * @property {() => void | Promise<void>} run
 */

/** The number of slots stands at this place of a shape. */
const SLOTS = { input_ids: 1, parents: 0, ids: 1, top_ids: 1, top_logprobs: 1 };
const INPUTS = ["input_ids", "past_len", "row", "parents", "mask", "depth"];
const OUTPUTS = ["ids", "top_ids", "top_logprobs"];
const ROWS = /^(past_key_values|present)\.([^.]+\.(?:key|value))$/;

/** The keys and values of one sequence in one cache. */
export class Rows {
  /**
   * @param {Runtime} runtime
   * @param {import("./bundle.js").CacheSpec} spec
   * @param {number} capacity
   */
  constructor(runtime, spec, capacity) {
    this.capacity = capacity;
    /** @type {Record<string, Buffer>} */
    this.tensors = {};
    for (const [layer, [heads, size]] of Object.entries(spec.layers)) {
      for (const kind of ["key", "value"]) {
        this.tensors[`${layer}.${kind}`] = runtime.tensor(spec.dtype, [1, heads, capacity, size]);
      }
    }
  }

  /**
   * Moves the rows of a path of slots to where they are committed.
   * @param {number} pastLen rows before slot 0.
   * @param {number[]} path ascending slots.
   */
  commit(pastLen, path) {
    if (path[path.length - 1] === path.length - 1) return; // The rows lie in their places.
    for (const { data, shape } of Object.values(this.tensors)) {
      const [, heads, capacity, size] = shape;
      for (let head = 0; head < heads; head++) {
        path.forEach((slot, i) => {
          const from = (head * capacity + pastLen + slot) * size;
          data.copyWithin((head * capacity + pastLen + i) * size, from, from + size);
        });
      }
    }
  }
}

/** An engine, bound to the rows of one sequence. */
export class Engine {
  /** @type {Map<number, Binding>} */
  #bindings = new Map();

  /**
   * @param {Runtime} runtime
   * @param {import("./bundle.js").EngineSpec} spec
   * @param {File} file
   * @param {Rows} rows
   */
  constructor(runtime, spec, file, rows) {
    this.runtime = runtime;
    this.spec = spec;
    this.file = file;
    this.rows = rows;
    this.slots = slots(spec);
    /** Whether the engine runs any number of slots, each call as many as it has tokens. */
    this.isOpen = typeof file.dimensions("input_ids")[1] !== "number" && !spec.inputs.some(({ name }) => name === "mask");
  }

  /**
   * Runs tokens in the first slots.
   * @param {Call} call
   */
  async run({ tokens, pastLen, parents, depths, sees }) {
    const width = this.isOpen ? tokens.length : this.slots;
    if (pastLen + width > this.rows.capacity) {
      throw new SpeccError(`the text has ${pastLen} tokens, and ${this.rows.capacity} rows are too few; give a shorter prompt`);
    }
    const { inputs, outputs, run } = this.#binding(width);
    const set = (/** @type {string} */ name, /** @type {number[]} */ numbers) =>
      numbers.forEach((number, i) => (inputs[name].data[i] = BigInt(number)));
    set("input_ids", tokens);
    set("past_len", [pastLen]);
    if (inputs.row) set("row", [tokens.length - 1]);
    if (inputs.parents && parents) set("parents", [...parents, ...Array(width - parents.length).fill(0)]);
    if (inputs.depth && depths) set("depth", [...depths, ...Array(width - depths.length).fill(0)]);
    if (inputs.mask && sees) {
      const { data, shape } = inputs.mask;
      const span = shape[1];
      const first = pastLen + width - span; // The row of the mask's first column.
      data.fill(1);
      tokens.forEach((_, slot) => {
        for (let column = Math.max(0, -first); column < span; column++) {
          data[slot * span + column] = Number(sees(slot, first + column));
        }
      });
    }
    await run();
    return new Outputs(outputs);
  }

  /**
   * Tells whether the engine can verify a draft.
   * @param {number[]} parents
   */
  fits(parents) {
    return fits(this.spec, parents);
  }

  /**
   * @param {number} width
   * @returns {Binding}
   */
  #binding(width) {
    let binding = this.#bindings.get(width);
    if (binding) return binding;
    const tensors = (/** @type {import("./bundle.js").Tensor[]} */ specs, /** @type {string[]} */ names) => {
      /** @type {Record<string, Buffer>} */
      const made = {};
      for (const { name, dtype, shape } of specs) {
        const row = ROWS.exec(name)?.[2];
        if (row) made[name] = this.rows.tensors[row];
        else if (names.includes(name)) made[name] = this.runtime.tensor(dtype, this.#shape(name, shape, width));
      }
      return made;
    };
    const inputs = tensors(this.spec.inputs, INPUTS);
    const outputs = tensors(this.spec.outputs, OUTPUTS);
    binding = { inputs, outputs, run: this.file.bind(inputs, outputs) };
    this.#bindings.set(width, binding);
    return binding;
  }

  /**
   * @param {string} name
   * @param {number[]} shape
   * @param {number} width
   */
  #shape(name, shape, width) {
    const axis = SLOTS[/** @type {keyof typeof SLOTS} */ (name)];
    const isOneRow = this.spec.block.last_row && OUTPUTS.includes(name);
    if (!this.isOpen || axis === undefined || isOneRow) return shape;
    return shape.map((size, i) => (i === axis ? width : size));
  }
}

/** What an engine returned, until its next call of that width. */
export class Outputs {
  /** @param {Record<string, Buffer>} tensors */
  constructor(tensors) {
    this.tensors = tensors;
  }

  /**
   * Returns the likeliest token after a slot.
   * @param {number} slot
   */
  id(slot) {
    return Number(this.tensors.ids.data[slot]);
  }

  /**
   * Returns the likeliest tokens after a slot, likeliest first.
   * @param {number} slot
   */
  topIds(slot) {
    const { data, shape } = this.tensors.top_ids;
    const count = shape[2];
    return Array.from(data.slice(slot * count, (slot + 1) * count), Number);
  }

  /**
   * Returns the probability of the likeliest token after a slot.
   * @param {number} slot
   */
  probability(slot) {
    const { data, shape } = this.tensors.top_logprobs;
    return Math.exp(data[slot * shape[2]]);
  }
}

/**
 * Returns how many slots an engine has.
 * @param {import("./bundle.js").EngineSpec} spec
 */
export function slots({ block: { topology } }) {
  return topology.parents?.length ?? /** @type {number} */ (topology.slots);
}

/**
 * Tells whether an engine can verify a draft.
 * @param {import("./bundle.js").EngineSpec} spec
 * @param {number[]} parents of the draft.
 */
export function fits(spec, parents) {
  const { topology } = spec.block;
  if (parents.length > slots(spec)) return false;
  if (topology.parents) return parents.every((parent, slot) => parent === topology.parents?.[slot]);
  return topology.span === undefined || parents.every((parent, slot) => parent === slot - 1);
}

/**
 * Returns what an engine needs that a runtime lacks, or null.
 * @param {import("./bundle.js").Bundle} bundle
 * @param {import("./bundle.js").EngineSpec} spec
 * @param {Runtime} runtime
 */
export function lack(bundle, spec, runtime) {
  for (const [name, version] of Object.entries(spec.needs)) {
    const isOurs = name === "onnxruntime" || name.startsWith("com.microsoft::");
    if (!isOurs) return `${name}, which ${runtime.name} does not have`;
    if (isOlder(runtime.version, version)) return `${name} of ONNX Runtime ${version}, and ${runtime.name} is ${runtime.version}`;
  }
  const input = spec.inputs.find(({ name }) => !INPUTS.includes(name) && !ROWS.test(name));
  if (input) return `the input ${input.name}, which this runtime does not fill`;
  const { dtype } = bundle.caches[spec.block.cache];
  return dtype === "float32" ? null : `rows of ${dtype}, and this runtime has float32`;
}

/**
 * Tells whether a version comes before another one.
 * @param {string} version
 * @param {string} other
 */
function isOlder(version, other) {
  const [a, b] = [version, other].map((each) => each.split(".").map(Number));
  const place = b.findIndex((number, i) => number !== (a[i] ?? 0));
  return place >= 0 && (a[place] ?? 0) < b[place];
}
