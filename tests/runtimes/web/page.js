// Drives the page in Chromium, and prints what a person would see, as JSON:
//
//   node page.js PACKAGE CHROMIUM ACTION BUNDLE [PROMPT TOKENS]

import { pathToFileURL } from "node:url";

const [folder, executablePath, action, bundle, prompt, tokens] = process.argv.slice(2);
const load = (file) => import(pathToFileURL(`${folder}/${file}`).href);
const { chromium } = await load("node_modules/playwright-core/index.mjs");
const { serve } = await load("server.js");

const TIMEOUT = 120_000;
const server = await serve(bundle);
const browser = await chromium.launch({ executablePath, args: process.getuid() === 0 ? ["--no-sandbox"] : [] });

/** Waits until the page is done, or shows an error. */
const settle = (page) =>
  page.waitForFunction(
    () => document.querySelector("#status").textContent.startsWith("Ready") || !document.querySelector("#error").hidden,
    null,
    { timeout: TIMEOUT },
  );

/** Opens the page as a person with a colour scheme and a width does. */
async function open(context, query) {
  const page = await context.newPage();
  const errors = [];
  page.on("pageerror", (error) => errors.push(error.message));
  const requests = [];
  page.on("request", (request) => requests.push(request.url()));
  await page.goto(`${server.url}/?${new URLSearchParams(query)}`);
  await settle(page);
  return { page, errors, requests };
}

const text = (page, selector) => page.locator(selector).textContent();

const ACTIONS = {
  /** Decodes by a recipe and plainly, wide and light, then narrow and dark. */
  async decode() {
    const seen = [];
    for (const [colorScheme, width, recipe] of [
      ["light", 1280, "early-exit"],
      ["dark", 360, "prompt-lookup"],
    ]) {
      const context = await browser.newContext({ colorScheme, viewport: { width, height: 800 } });
      const { page, errors } = await open(context, { bundle: "bundle", threads: 1 });
      await page.selectOption("#recipe", recipe);
      await page.fill("#prompt", prompt);
      await page.fill("#count", tokens);
      await page.click("#run");
      await page.waitForFunction(() => document.querySelector("#status").textContent === "Ready", null, { timeout: TIMEOUT });
      const state = () =>
        page.evaluate(() => {
          const all = (selector) => [...document.querySelectorAll(selector)].map((each) => each.textContent);
          const { backgroundColor } = getComputedStyle(document.body);
          return {
            title: document.querySelector("#step-title").textContent,
            nodes: document.querySelectorAll("#tree .node").length,
            accepted: document.querySelectorAll("#tree .node.accepted").length,
            overflow: document.documentElement.scrollWidth > innerWidth,
            marks: all("#answer mark").join(""),
            speeds: all("#speeds dt"),
            steps: document.querySelectorAll("#history i").length,
            isolated: crossOriginIsolated,
            backgroundColor,
          };
        });
      const last = await state();
      await page.locator("#step").fill("0");
      const first = await state();
      seen.push({ answer: await text(page, "#answer"), verdict: await text(page, "#verdict"), last, first, errors });
      await context.close();
    }
    return seen;
  },

  /** Opens the page twice, and says how often each file was asked for. */
  async twice() {
    const context = await browser.newContext();
    const asked = [];
    for (let i = 0; i < 2; i++) {
      const { page, requests } = await open(context, { bundle: "bundle", threads: 1 });
      await page.waitForFunction(() => "kept" in document.body.dataset, null, { timeout: TIMEOUT });
      asked.push({ status: await text(page, "#status"), weights: requests.filter((url) => url.includes("weights")).length });
      await page.close();
    }
    return asked;
  },

  /** Opens the page, which decodes at once, and says after how many seconds its first token came; then with the files cached. */
  async first() {
    const context = await browser.newContext();
    const seconds = [];
    for (let i = 0; i < 2; i++) {
      const page = await context.newPage();
      await page.goto(`${server.url}/?bundle=bundle&run&compare=0&tokens=${tokens}`);
      await page.waitForFunction(() => "firstToken" in document.body.dataset && "kept" in document.body.dataset, null, { timeout: TIMEOUT });
      seconds.push(Number(await page.evaluate(() => document.body.dataset.firstToken)));
      await page.close();
    }
    return seconds;
  },

  /** Stops an answer before its prompt is read, and runs it again. */
  async stop() {
    const { page } = await open(await browser.newContext(), { bundle: "bundle", threads: 1, compare: 0, tokens });
    await page.fill("#prompt", prompt);
    await page.evaluate(() => ["#run", "#stop"].forEach((id) => document.querySelector(id).click()));
    await page.waitForFunction(() => !document.querySelector("#run").disabled, null, { timeout: TIMEOUT });
    const stopped = [await text(page, "#status"), await text(page, "#answer")];
    await page.click("#run");
    await page.waitForFunction(() => document.querySelector("#status").textContent === "Ready", null, { timeout: TIMEOUT });
    return [stopped, [await text(page, "#status"), await text(page, "#answer")]];
  },

  /** Opens the page as a file, and says what a person sees. */
  async file() {
    const page = await browser.newPage();
    await page.goto(pathToFileURL(`${folder}/index.html`).href);
    await page.locator("#failed").waitFor({ timeout: TIMEOUT });
    const line = await text(page, "#failed");
    await page.goto(`${server.url}/?bundle=bundle&threads=1`);
    await settle(page);
    return [line, await page.locator("#failed").isVisible()];
  },

  /** Opens a bundle that cannot be used, and another address without a bundle. */
  async refuse() {
    const context = await browser.newContext();
    const { page } = await open(context, { bundle: "bundle", threads: 1 });
    const line = await text(page, "#error");
    const runs = await page.locator("#run").isEnabled();
    return { line, runs };
  },

  /** Opens addresses, each a query, and says what the page shows once it is ready or refuses. */
  async addresses() {
    const context = await browser.newContext();
    const seen = [];
    for (const query of JSON.parse(prompt)) {
      const { page } = await open(context, query);
      if ("run" in query) await page.waitForFunction(() => !document.querySelector("#error").hidden, null, { timeout: TIMEOUT });
      seen.push({ line: await text(page, "#error"), status: await text(page, "#status"), runs: await page.locator("#run").isEnabled() });
      await page.close();
    }
    return seen;
  },
};

try {
  console.log(JSON.stringify(await ACTIONS[action]()));
} finally {
  await browser.close();
  server.close();
}
