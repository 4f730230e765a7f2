// The text of a bundle in a folder: runtimes/javascript over @huggingface/tokenizers.

import { Tokenizer } from "@huggingface/tokenizers";

import { readText } from "../javascript/text.js";
import { openFolder } from "./folder.js";

/**
 * Reads a bundle's tokenizer.
 * @param {string} bundle its directory.
 */
export async function openText(bundle) {
  return readText(await openFolder(bundle), Tokenizer);
}
