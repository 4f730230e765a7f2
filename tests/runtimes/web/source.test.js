// What is refused, in one line, of a bundle behind a URL and of the server of the page. No packages are needed.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { get } from "node:http";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";

import { openBundle } from "../../../runtimes/javascript/bundle.js";
import { SpeccError } from "../../../runtimes/javascript/errors.js";
import { HttpSource } from "../../../runtimes/web/http_source.js";
import { WasmRuntime } from "../../../runtimes/web/onnxruntime.js";
import { serve } from "../../../runtimes/web/server.js";

const FROZEN = new URL("../../bundles/schema-3/", import.meta.url).pathname;
const URL_OF_BUNDLE = "http://host/model.specc";

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

/** Reads a file that a server answers in some way. */
async function read(context, answer, expected) {
  context.mock.method(globalThis, "fetch", async () => answer());
  return refusal(() => new HttpSource(URL_OF_BUNDLE).read("a.bin", expected));
}

/** Returns a response whose body breaks off after three bytes. */
const broken = () =>
  new Response(
    new ReadableStream({
      pull(controller) {
        if (this.sent) return controller.error(new TypeError("network error"));
        this.sent = true;
        controller.enqueue(new Uint8Array(3));
      },
    }),
  );

test("what is no URL is refused", async () => {
  for (const url of ["", undefined, null, 5, "http://[", "data:,x", "ftp://host/x", "file:///x", "http://name:word@host/x"]) {
    assert.match(await refusal(() => new HttpSource(url)), /^the bundle's URL .* is not one; give that of a folder that specc/);
  }
  assert.equal(new HttpSource(URL_OF_BUNDLE).name, URL_OF_BUNDLE);
});

test("a file that is missing, that breaks off, or that is too long is refused", async (context) => {
  const digest = { sha256: "0".repeat(64) };
  const url = `${URL_OF_BUNDLE}/a.bin`;
  const cases = [
    [() => new Response("", { status: 404 }), `cannot read ${url}: the server answers 404; give the URL of a bundle`],
    [() => Promise.reject(new TypeError("Failed to fetch")), `cannot read ${url} (Failed to fetch); does its server run, and does it allow this page (CORS)?`],
    [broken, `${url} broke off after 3 of 8 bytes (network error); load the page again`, 8],
    [broken, `${url} broke off (network error); load the page again`],
    [() => new Response("123456789"), `${url} has more than the 8 bytes that the manifest says; copy the bundle again`, 8],
    [() => new Response("1"), `${url} has ${2 ** 52} bytes, and this browser has no memory for them; take a smaller bundle`, 2 ** 52],
  ];
  for (const [answer, message, bytes] of cases) {
    assert.equal(await read(context, answer, bytes && { bytes, ...digest }), message);
  }
  assert.equal(await read(context, () => new Response("12345678"), { bytes: 8, ...digest }), null);
});

test("each file is asked for with the query of the bundle's URL, which no message shows", async (context) => {
  const asked = [];
  const answers = [() => new Response("1"), () => new Response("", { status: 403 })];
  context.mock.method(globalThis, "fetch", async (url) => (asked.push(url.href), answers.shift()()));
  for (const url of [`${URL_OF_BUNDLE}?token=a/b#c`, `${URL_OF_BUNDLE}/?token=a/b`]) {
    const source = new HttpSource(url);
    assert.equal(source.name, URL_OF_BUNDLE);
    const line = await refusal(() => source.read("a/b c.bin"));
    if (line) assert.equal(line, `cannot read ${URL_OF_BUNDLE}/a/b%20c.bin: the server answers 403; give the URL of a bundle`);
  }
  assert.deepEqual(asked, Array(2).fill(`${URL_OF_BUNDLE}/a/b%20c.bin?token=a/b`));
  assert.equal(answers.length, 0);
});

test("a page in place of a manifest is refused", async (context) => {
  context.mock.method(globalThis, "fetch", async () => new Response("<!doctype html>"));
  const line = await refusal(() => openBundle(new HttpSource(URL_OF_BUNDLE), () => null));
  assert.equal(line, `manifest.json of ${URL_OF_BUNDLE} is not JSON; name a bundle that specc compile wrote`);
});

test("a module that cannot start, and memory that it does not have, are refused", async () => {
  const factory = async () => Promise.reject(new Error("no SIMD\nat 5"));
  const line = await refusal(() => WasmRuntime.create({ factory, version: "1", threads: 1 }));
  assert.equal(line, "this browser cannot start onnxruntime-web (no SIMD); use one with SIMD in WebAssembly");
  const asked = [];
  const runtime = new WasmRuntime({ _malloc: (bytes) => (asked.push(bytes), 0) }, "1");
  const memory = (bytes) => `this browser has no memory for ${bytes} bytes more; close other pages, or take a smaller bundle`;
  assert.equal(await refusal(() => runtime.tensor("float32", [2, 8])), memory(64));
  assert.equal(await refusal(() => runtime.tensor("float32", [2 ** 31])), memory(2 ** 33));
  assert.deepEqual(asked, [64], "2 ** 33 bytes would be asked for as 0");
});

test("a runtime that is closed has freed its memory, though a tensor was refused", async () => {
  const open = new Set();
  const tensors = new Set();
  let next = 8;
  const module = {
    HEAPU8: new Uint8Array(256),
    _malloc: () => (open.add((next += 8)), next),
    _free: (address) => open.delete(address),
    _OrtCreateTensor: (_code, _address, bytes) => (bytes === 4 ? (tensors.add(1), 1) : 0),
    _OrtReleaseTensor: (handle) => tensors.delete(handle),
    _OrtGetLastError() {},
    stackSave: () => 0,
    stackRestore() {},
    stackAlloc: () => 0,
    setValue() {},
    getValue: () => 0,
  };
  const runtime = new WasmRuntime(module, "1");
  runtime.tensor("float32", [1]);
  assert.match(await refusal(() => runtime.tensor("float32", [2])), /^onnxruntime-web refuses a tensor \(no reason given\); compile/);
  assert.deepEqual([open.size, tensors.size], [2, 1]);
  runtime.close();
  assert.deepEqual([open.size, tensors.size], [0, 0]);
});

test("a folder without a bundle, and a port that cannot be had, are refused", async () => {
  const line = (bundle, port) => serve(bundle, { port }).then((server) => server.close(), (error) => error.message);
  assert.equal(await line("/nowhere", 0), "/nowhere has no manifest.json; name a bundle that specc compile wrote");
  for (const port of [NaN, -1, 65536, 1.5]) {
    assert.equal(await line(FROZEN, port), `the port is ${port}; give a whole number from 0 to 65535`);
  }
  const other = createServer().listen(0, "127.0.0.1");
  await new Promise((resolve) => other.once("listening", resolve));
  const { port } = other.address();
  assert.match(await line(FROZEN, port), new RegExp(`^cannot serve at port ${port} \\(.*EADDRINUSE.*\\); give another --port$`));
  other.close();
  assert.equal(await line(FROZEN, 0), undefined);
});

test("a pipe or a folder in a bundle is not served, since a reader would wait for its end", async () => {
  const folder = await mkdtemp(join(tmpdir(), "pipe-"));
  await writeFile(join(folder, "manifest.json"), "{}");
  await mkdir(join(folder, "folder"));
  execFileSync("mkfifo", [join(folder, "pipe")]);
  const server = await serve(folder);
  const status = (/** @type {string} */ name) =>
    new Promise((resolve) => get(`${server.url}/bundle/${name}`, (response) => resolve(response.resume().statusCode)));
  const statuses = await Promise.all(["manifest.json", "pipe", "folder", "nothing"].map(status));
  server.close();
  await rm(folder, { recursive: true });
  assert.deepEqual(statuses, [200, 404, 404, 404]);
});
