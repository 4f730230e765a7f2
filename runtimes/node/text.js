// The text of a bundle in a folder: runtimes/javascript over @huggingface/tokenizers.

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { Tokenizer } from "@huggingface/tokenizers";

import { Text } from "../javascript/text.js";

const FILES = ["tokenizer.json", "tokenizer_config.json"];

/**
 * Reads a bundle's tokenizer.
 * @param {string} bundle its directory.
 */
export async function openText(bundle) {
  const contents = await Promise.all(FILES.map((name) => readFile(join(bundle, name), "utf8")));
  const [tokenizer, config] = contents.map((content) => JSON.parse(content));
  return new Text(/** @type {any} */ (new Tokenizer(tokenizer, config)), tokenizer);
}
