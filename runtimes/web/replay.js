#!/usr/bin/env node
// Replays a bundle's golden outputs in Chromium, by every recipe that the browser's runtime has:
//
//   node replay.js BUNDLE [--json] [--recipe NAME]… [--threads N]
//
// It prints a line for each recipe. With --json it prints first a line for each recipe that it leaves out, and then one for
// each recipe and case, as specc test --runtime reads them.
// The exit status is 1 if a recipe diverged, and 2 if the bundle, or a recipe that is named, cannot be used. Engines have one
// thread, so that processor seconds compare.

import { parseArgs } from "node:util";

import { findBrowser, openPage, processorSeconds } from "./browser.js";
import { firstLine } from "../javascript/errors.js";
import { MOST_THREADS, readNumber } from "./numbers.js";
import { serve } from "./server.js";

const OPTIONS = /** @type {const} */ ({
  help: { type: "boolean", short: "h", default: false },
  json: { type: "boolean", default: false },
  recipe: { type: "string", multiple: true },
  threads: { type: "string", default: "1" },
});

const USAGE = "node replay.js BUNDLE [--json] [--recipe NAME] [--threads N]";

/**
 * Replays a bundle.
 * @param {string} bundle
 * @param {{ json: boolean, recipe?: string[], threads: string }} options
 */
async function replay(bundle, { json, recipe, threads }) {
  readNumber("threads", threads, 1, MOST_THREADS);
  findBrowser();
  /** @type {(status: number) => void} */
  let finish = () => {};
  /** @type {(error: Error) => void} */
  let fail = () => {};
  const finished = new Promise((resolve, reject) => {
    finish = resolve;
    fail = reject;
  });
  /** @type {ReturnType<typeof openPage>} */
  let page;
  const now = () => processorSeconds(page.process.pid ?? 0) ?? 0;
  const rows = new Rows(json, now);
  const report = (/** @type {string} */ body) => {
    const data = JSON.parse(body);
    if (data.error) fail(new Error(data.error));
    else if (data.done) finish(rows.end());
    else if (data.recipe) rows.add(data);
    else rows.begin(data.leftOut);
  };
  process.stdout.on("error", (error) => fail(new Error(`cannot write the output (${error.message}); free some space, or write it elsewhere`)));
  const server = await serve(bundle, { report });
  const query = new URLSearchParams({ threads, ...(recipe && { recipes: recipe.join() }) });
  page = openPage(`${server.url}/replay.html?${query}`);
  page.process.once("error", fail).once("close", (status) => fail(new Error(`Chromium ended with status ${status}`)));
  try {
    return await finished;
  } finally {
    await page.close();
    server.close();
  }
}

/** What is printed of the answers. */
class Rows {
  counts = { identical: 0, "near-tie": 0, diverged: 0 };
  recipe = "";
  tokens = 0;
  start = 0;
  hasDiverged = false;
  /** @type {{ recipe: string, left_out: string }[]} */
  others = [];

  /**
   * @param {boolean} json
   * @param {() => number} now the browser's processor seconds.
   */
  constructor(json, now) {
    this.json = json;
    this.now = now;
  }

  /** @param {{ recipe: string, left_out: string }[]} others the recipes that are left out, with the reason. */
  begin(others) {
    this.others = others;
    if (this.json) others.forEach((other) => console.log(JSON.stringify(other)));
    this.start = this.now();
  }

  /** @param {any} data */
  add({ recipe, number, answer, verdict, seconds, meanAcceptanceLength }) {
    if (this.json) {
      const line = { recipe, case: number, token_ids: answer, seconds, mean_acceptance_length: meanAcceptanceLength };
      console.log(JSON.stringify(line));
    }
    if (recipe !== this.recipe) this.#print();
    this.recipe = recipe;
    this.counts[/** @type {keyof Rows["counts"]} */ (verdict)]++;
    this.tokens += answer.length;
    this.hasDiverged ||= verdict === "diverged";
  }

  /** Prints the last recipe, and returns the exit status. */
  end() {
    this.#print();
    if (!this.json) this.others.forEach((other) => console.log(`${other.recipe.padEnd(22)} not replayed: ${other.left_out}`));
    return this.hasDiverged ? 1 : 0;
  }

  #print() {
    const spent = this.now() - this.start;
    if (this.recipe && !this.json) {
      const verdicts = Object.entries(this.counts).map(([verdict, count]) => `${count} ${verdict}`);
      const speed = spent > 0 ? `, ${(this.tokens / spent).toFixed(1)} tokens per processor second` : "";
      console.log(`${this.recipe.padEnd(22)} ${verdicts.join(", ")}${speed}`);
    }
    this.start = this.now();
    this.tokens = 0;
    this.counts = { identical: 0, "near-tie": 0, diverged: 0 };
  }
}

try {
  const { values, positionals } = parseArgs({ allowPositionals: true, options: OPTIONS });
  if (values.help) console.log(`usage: ${USAGE}`);
  else if (positionals.length !== 1) throw new Error(`give one bundle: ${USAGE}`);
  else process.exitCode = await replay(positionals[0], values);
} catch (error) {
  console.error(`specc-replay-web: error: ${firstLine(error)}`);
  process.exitCode = 2;
}
