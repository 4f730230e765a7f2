// What `openModel` refuses, and a session over ONNX Runtime's own module. SPECC_WEB names the package with what it needs.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { pathToFileURL } from "node:url";

const FROZEN = new URL("../../bundles/schema-3/", import.meta.url);
const PACKAGE = pathToFileURL(`${process.env.SPECC_WEB}/`);
const BUNDLE = "http://host/model.specc";
const PROMPT = [3, 9, 4, 1, 7, 3, 9, 4];
const { openModel, openText } = await import(new URL("model.js", PACKAGE).href);
const { SpeccError } = await import(new URL("../javascript/errors.js", PACKAGE).href);
const { Engine, Rows } = await import(new URL("../javascript/engine.js", PACKAGE).href);

/** Answers for the bundle's server, and for the package's own files, which a page would get from its server. */
function answerFrom(context, files = {}) {
  const asked = [];
  context.mock.method(globalThis, "fetch", async (resource) => {
    const url = new URL(resource);
    asked.push(url.href);
    const name = url.pathname.split("/").at(-1);
    if (url.protocol === "http:" && name in files) return new Response(files[name]);
    return new Response(await readFile(url.protocol === "http:" ? new URL(name, FROZEN) : url));
  });
  return asked;
}

/** Returns the line of an error that a person can mend, or null. */
async function refusal(work) {
  try {
    await work();
    return null;
  } catch (error) {
    assert.ok(error instanceof SpeccError, `${error.stack}`);
    assert.ok(!error.message.includes("\n"));
    return error.message;
  }
}

async function decode(session, prompt, request) {
  const tokens = [];
  for await (const step of session.steps(prompt, request)) tokens.push(...step.tokens);
  return tokens;
}

test("threads and contexts that mean nothing are refused before a file is asked for", async (context) => {
  const asked = answerFrom(context);
  for (const threads of [-2, 0, NaN, 1.5, 65, Infinity, "2", null]) {
    assert.equal(await refusal(() => openModel(BUNDLE, { threads })), `threads is ${threads}; give a whole number from 1 to 64`);
  }
  const isolated = "this page may not use 2 threads; serve it with the headers of serve.js, or give threads=1";
  assert.equal(await refusal(() => openModel(BUNDLE, { threads: 2 })), isolated);
  for (const size of [-1, 0, 1, NaN]) {
    assert.equal(await refusal(() => openModel(BUNDLE, { context: size })), `context is ${size}; give a whole number of 2 or more`);
  }
  assert.deepEqual(asked, []);
});

test("a session refuses what it cannot run, goes on, and its model frees all memory", async (context) => {
  answerFrom(context);
  const model = await openModel(BUNDLE, { threads: 1, context: 40 });
  const { module } = model.runtime;
  const open = new Set();
  const [allocate, free] = [module._malloc, module._free];
  module._malloc = (bytes) => {
    const address = allocate(bytes);
    open.add(address);
    return address;
  };
  module._free = (address) => (open.delete(address), free(address));
  const session = model.session();
  assert.match(await refusal(() => decode(session, PROMPT, { recipe: "nope" })), /^the bundle has no recipe 'nope', only plain, /);
  assert.match(await refusal(() => decode(session, () => [1])), /^the prompt is function; give an array/);
  const vocabulary = model.bundle.model.vocab_size;
  assert.equal(await refusal(() => decode(session, [vocabulary])), `the prompt has token ${vocabulary}; the vocabulary has 0 to ${vocabulary - 1}`);
  assert.equal(await refusal(() => decode(session, Array(40).fill(1))), "the prompt has 40 tokens; give 1 to 39");
  const plain = await decode(session, PROMPT, { recipe: "plain", maxNewTokens: Number.MAX_SAFE_INTEGER });
  assert.ok(plain.length && plain.length <= 40 - PROMPT.length);
  assert.deepEqual(await decode(session, PROMPT, { recipe: "prompt-lookup", maxNewTokens: 99 }), plain);
  assert.ok(open.size > 0);
  await model.close();
  assert.equal(open.size, 0);
});

test("an engine that ONNX Runtime cannot load is one line, and the weights that were changed are", async (context) => {
  const weights = new Uint8Array(await readFile(new URL("weights.safetensors", FROZEN)));
  weights[weights.length - 1] ^= 1;
  answerFrom(context, { "weights.safetensors": weights });
  const model = await openModel(BUNDLE, { threads: 1 });
  assert.equal(await refusal(() => decode(model.session(), PROMPT)), `weights.safetensors of ${BUNDLE} was changed; copy the bundle again`);
  answerFrom(context);
  const session = model.session();
  const spec = model.bundle.engine("decode");
  const { read } = model.bundle;
  model.bundle.read = async (file, progress) => {
    const content = await read.call(model.bundle, file, progress);
    return file === spec.file ? content.slice(0, 99) : content;
  };
  assert.match(await refusal(() => decode(session, PROMPT)), /^onnxruntime-web cannot load decode.onnx \(.*\); compile the bundle again$/);
  model.bundle.read = read;
  assert.equal((await decode(session, PROMPT, { maxNewTokens: 4 })).length, 4);
  await model.close();
});

test("packages that are not installed, and a tokenizer that cannot be read, name the remedy", async (context) => {
  answerFrom(context);
  const model = await openModel(BUNDLE, { threads: 1 });
  const wrong = { json: async () => ({}), source: model.bundle.source, files: {} };
  assert.match(await refusal(() => openText(wrong)), /^tokenizer\.json of http:\/\/host\/model\.specc cannot be used here \(.*\); run the/);
  await model.close();
  context.mock.method(globalThis, "fetch", async () => new Response("", { status: 404 }));
  assert.match(await refusal(() => openModel(BUNDLE)), /^a file of this page cannot be loaded \(.*\); run npm ci --ignore-scripts in/);
});

// onnxruntime-web 1.29 and 1.30 compare a slot with one key at a time: 27 times.
test("a step of 32 slots takes less than 12 times as long as a step of one slot", async (context) => {
  answerFrom(context);
  const model = await openModel(BUNDLE, { threads: 1 });
  const spec = model.bundle.engine("decode");
  const rows = new Rows(model.runtime, model.bundle.caches.target, 384);
  const engine = new Engine(model.runtime, spec, await model.file(spec), rows);
  const least = { 1: Infinity, 32: Infinity };
  for (let round = 0; round < 120; round++) {
    for (const slots of [1, 32]) {
      const start = performance.now();
      await engine.run({ tokens: Array(slots).fill(7), pastLen: 150 });
      least[slots] = Math.min(least[slots], performance.now() - start);
    }
  }
  await model.close();
  assert.ok(least[32] < 12 * least[1], `${least[1]} ms and ${least[32]} ms`);
});
