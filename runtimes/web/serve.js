#!/usr/bin/env node
// Serves the page and a bundle, for this machine only, and prints the page's address:
//
//   node serve.js BUNDLE [--port N]

import { parseArgs } from "node:util";

import { firstLine } from "../javascript/errors.js";
import { MOST_PORT, readNumber } from "./numbers.js";
import { serve } from "./server.js";

const DEFAULT_PORT = "8080";
const USAGE = "node serve.js BUNDLE [--port N]";

try {
  const options = /** @type {const} */ ({
    help: { type: "boolean", short: "h", default: false },
    port: { type: "string", default: DEFAULT_PORT },
  });
  const { values, positionals } = parseArgs({ allowPositionals: true, options });
  if (values.help) console.log(`usage: ${USAGE}`);
  else if (positionals.length !== 1) throw new Error(`give one bundle: ${USAGE}`);
  else {
    const { url } = await serve(positionals[0], { port: readNumber("the port", values.port, 0, MOST_PORT) });
    console.log(`${url}/?bundle=bundle`);
  }
} catch (error) {
  console.error(`specc-serve-web: error: ${firstLine(error)}`);
  process.exitCode = 2;
}
