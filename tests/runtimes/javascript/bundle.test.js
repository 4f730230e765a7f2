// What is refused of a bundle, in one line.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";

import { openBundle } from "../../../runtimes/javascript/bundle.js";
import { FolderSource } from "../../../runtimes/javascript/folder_source.js";
import { nearTie, parseGolden, readGolden } from "../../../runtimes/javascript/golden.js";
import { fault } from "../../../runtimes/javascript/json_text.js";
import { exampleText } from "./examples.js";

const FROZEN = new URL("../../bundles/schema-3/", import.meta.url).pathname;
const frozen = new FolderSource(FROZEN);
const manifest = await frozen.read("manifest.json");
const accepts = () => null;

/** Returns a manifest with a right digest. */
function sealed(change) {
  const data = JSON.parse(new TextDecoder().decode(manifest));
  change(data);
  delete data.manifest_sha256;
  const text = `${JSON.stringify({ ...data, manifest_sha256: "0".repeat(64) }, null, 1)}\n`;
  const digest = createHash("sha256").update(text).digest("hex");
  return new TextEncoder().encode(text.replace(`"manifest_sha256": "${"0".repeat(64)}"`, `"manifest_sha256": "${digest}"`));
}

/** Returns a source like the frozen bundle, with other files. */
const source = (files) => ({ name: "b", read: async (file) => files[file] ?? frozen.read(file) });

const refusal = (content, validate = accepts) =>
  openBundle(source({ "manifest.json": content }), validate).then(() => null, (error) => error.message);

test("the frozen bundles of schemas 2 and 3 are read, and that of schema 1 is refused", async () => {
  for (const schema of [2, 3]) {
    const bundle = await openBundle(new FolderSource(FROZEN.replace("schema-3", `schema-${schema}`)), accepts);
    assert.equal((await readGolden(bundle)).length, 4);
    assert.equal(bundle.engine("decode-lanes"), null);
  }
  const old = openBundle(new FolderSource(FROZEN.replace("schema-3", "schema-1")), accepts);
  await assert.rejects(old, { message: /has schema 1, and this runtime reads 2 and 3; compile the bundle again$/ });
});

test("example 22: the digest of the manifest", async () => {
  assert.match(await refusal(new TextEncoder().encode(exampleText(22)), () => "its fields were checked"), /is wrong: its fields were checked/);
  assert.match(await refusal(new TextEncoder().encode(exampleText(22).replace('"schema": 2', '"schema": 3'))), /was changed; compile/);
});

test("a manifest that was changed, is newer or is none is refused in one line", async () => {
  const changed = manifest.slice();
  changed[changed.indexOf(0x31)] = 0x32;
  assert.match(await refusal(changed), /^manifest.json of b (was changed|is not JSON|has schema)/);
  assert.equal(await refusal(sealed((data) => (data.schema = 4))), "manifest.json of b has schema 4, and this runtime reads 2 and 3; use a newer runtime");
  for (const text of ["", "<!doctype html>", "[]", "{}", '{"schema": "3"}', "\ufeff{}"]) {
    assert.match(await refusal(new TextEncoder().encode(text)), /; name a bundle that specc compile wrote$/);
  }
  assert.equal(await refusal(sealed(() => {})), null);
});

test("names and numbers that contradict each other are refused", async () => {
  const cases = [
    [(d) => (d.default_recipe = "x"), "the default recipe x is not in recipes"],
    [(d) => (d.engines[0].file = "x.onnx"), "names the file x.onnx, which is not in files"],
    [(d) => (d.engines[0].block.cache = "x"), "names the cache x, which is not in caches"],
    [(d) => (d.engines[0].block.topology.parents[1] = 1), "are not a tree"],
    [(d) => (d.engines[0].inputs[0].shape[0] = 0), "has a size that is not 1 to 2147483647"],
    [(d) => d.recipes[0].verify.push("x"), "names the engine x, which is not in engines"],
    [(d) => (d.files["../x"] = d.files["golden.jsonl"]), "the path ../x is not inside the bundle"],
  ];
  for (const [change, message] of cases) {
    const line = await refusal(sealed(change));
    assert.ok(line?.includes(message) && line.endsWith("; compile the bundle again"), `${line}`);
  }
});

test("a manifest that names no weights has those of the default name", async () => {
  const left = sealed((data) => {
    delete data.weights;
    for (const engine of data.engines) delete engine.weights;
  });
  const bundle = await openBundle(source({ "manifest.json": left }), accepts);
  assert.equal(bundle.engine("decode").weights, "weights.safetensors");
});

test("what the schema refuses is in the message", async () => {
  const seen = [];
  const line = await refusal(sealed(() => {}), (data) => (seen.push(data.schema), "engines/0: too many"));
  assert.deepEqual(seen, [3]);
  assert.equal(line, "manifest.json of b is wrong: engines/0: too many; compile the bundle again");
});

test("a name that stands twice, and values that are nested too deep, are faults", () => {
  assert.equal(fault('{"a": {"b": 1}, "b": [{"b": ":{,"}, {"b": 2}]}'), null);
  assert.equal(fault('{"a": 1, "b": "\\"", "\\u0061": 2}'), 'an object has the name "a" twice');
  assert.equal(fault("[".repeat(32) + "]".repeat(32)), null);
  assert.match(fault("[".repeat(33) + "]".repeat(33)), /nested more than 32 deep/);
});

test("a file that is missing, cut or changed is refused when it is read", async () => {
  const golden = await frozen.read("golden.jsonl");
  const changed = golden.slice();
  changed[9] ^= 1;
  const read = async (content) => {
    const bundle = await openBundle(source({ "golden.jsonl": content }), accepts);
    return readGolden(bundle).then(() => null, (error) => error.message);
  };
  assert.equal(await read(golden), null);
  assert.match(await read(golden.slice(9)), /^golden.jsonl of b has \d+ bytes, and the manifest says \d+; copy the bundle again$/);
  assert.equal(await read(changed), "golden.jsonl of b was changed; copy the bundle again");
  const bundle = await openBundle(source({}), accepts);
  bundle.files["text.json"] = { bytes: 1, sha256: createHash("sha256").update("{").digest("hex") };
  bundle.source.read = async () => new TextEncoder().encode("{");
  await assert.rejects(bundle.json("text.json"), { message: /^text.json of b is not JSON \(.*\); compile the bundle again$/ });
  await assert.rejects(new FolderSource(`${FROZEN}/golden.jsonl`).read("a"), { message: /golden.jsonl\/a \(ENOTDIR.*\); name a bundle/ });
  await assert.rejects(new FolderSource("/nowhere").read("a"), { message: "cannot read /nowhere/a; name a bundle that specc compile wrote" });
});

test("a file without golden cases is refused", async () => {
  const digest = createHash("sha256").update("\n").digest("hex");
  const empty = sealed((data) => (data.files["golden.jsonl"] = { bytes: 1, sha256: digest }));
  const bundle = await openBundle(source({ "manifest.json": empty, "golden.jsonl": new Uint8Array([10]) }), accepts);
  await assert.rejects(readGolden(bundle), { message: "golden.jsonl of b: there are no golden cases; compile the bundle again" });
});

test("golden cases that prove nothing are refused, and a wide tolerance counts as the usual one", () => {
  const model = { context: 4, vocab_size: 8 };
  const right = { prompt_ids: [1], token_ids: [2, 3], gaps: [0.5, 0.5] };
  /** @type {[object, RegExp][]} */
  const faults = [
    [{ ...right, token_ids: [] }, /has 1 and 0 tokens, of a context of 4/],
    [{ ...right, prompt_ids: [1, 1, 1] }, /has 3 and 2 tokens, of a context of 4/],
    [{ ...right, gaps: [0.5] }, /has 1 gaps for 2 tokens/],
    [{ ...right, token_ids: [2, 8] }, /has token 8, and the vocabulary has 8/],
    [{ ...right, token_ids: [2, 1.5] }, /has token 1.5, and the vocabulary has 8/],
    [{ ...right, token_ids: [2, null] }, /has token null, and the vocabulary has 8/],
    [{ ...right, gaps: [0.5, -1] }, /has the gap -1; gaps are 0 or more/],
    [{ ...right, gaps: [0.5, true] }, /has the gap true; gaps are 0 or more/],
    [{ ...right, gaps: [0.5, null] }, /has the gap null; gaps are 0 or more/],
    [{ ...right, gaps: [0, 0] }, /has 2 of 2 gaps below the tolerance of 0.001, so nearly any answer would pass/],
    [{ ...right, gaps: [1e-300, 5e-324] }, /has 2 of 2 gaps below the tolerance of 0.001/],
    [{ ...right, gaps: undefined }, /has no prompt_ids, token_ids and gaps/],
    [[3], /has no prompt_ids, token_ids and gaps/],
  ];
  const parse = (/** @type {string} */ text) => parseGolden(text, "f", model, nearTie(1));
  for (const each of [right, { ...right, gaps: [0, 0.5] }]) assert.deepEqual(parse(JSON.stringify(each)), [each]);
  for (const [golden, fault] of faults) assert.throws(() => parse(JSON.stringify(golden)), fault);
  assert.throws(() => parse('{"gaps": [1e999, NaN'), { message: "f: golden case 0 has no prompt_ids, token_ids and gaps; compile the bundle again" });
  assert.throws(() => parse(JSON.stringify(right).replace("0.5", "1e999")), /has the gap Infinity; gaps are 0 or more/);
  const other = { ...right, prompt_ids: [2] };
  assert.equal(parse([right, other].map((each) => JSON.stringify(each)).join("\n")).length, 2);
  const copies = [right, other, { ...right, prompt: "b", token_ids: [3, 2] }].map((each) => JSON.stringify(each)).join("\n");
  assert.throws(() => parse(copies), { message: "f: golden case 2 has the prompt of golden case 0, and a copy proves nothing; compile the bundle again" });
  assert.equal(nearTie(Infinity), 0.001);
});
