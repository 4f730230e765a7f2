// Text of tokens: a bundle's tokenizer, and a stream that never takes a character back.

import { SpeccError, firstLine } from "./errors.js";

/**
 * What `Tokenizer` of @huggingface/tokenizers has.
 * @typedef {object} Tokenizer
 * @property {(text: string) => { ids: number[] }} encode
 * @property {(ids: number[], options: object) => string} decode
 * @property {(id: number) => string | undefined} id_to_token
 */

const TOKENIZER = "tokenizer.json";
const CONFIG = "tokenizer_config.json"; // Some bundles have none.
const BYTE = /^<0x[0-9A-F]{2}>$/;
const REPLACEMENT = "\uFFFD";
const CONTEXT = 8; // Tokens before the new ones that are decoded with them, for spaces between words.

/**
 * Reads a bundle's tokenizer.
 * @param {import("./bundle.js").Bundle} bundle
 * @param {any} tokenizerClass `Tokenizer` of @huggingface/tokenizers, or a promise of it.
 */
export async function readText(bundle, tokenizerClass) {
  const hasConfig = Object.hasOwn(bundle.files, CONFIG);
  const [Tokenizer, tokenizer, config] = await Promise.all([tokenizerClass, bundle.json(TOKENIZER), hasConfig ? bundle.json(CONFIG) : {}]);
  try {
    return new Text(new Tokenizer(tokenizer, config), tokenizer);
  } catch (error) {
    throw new SpeccError(`${TOKENIZER} of ${bundle.source.name} cannot be used here (${firstLine(error)}); run the bundle with specc generate`);
  }
}

/** A bundle's tokenizer. */
export class Text {
  /**
   * @param {Tokenizer} tokenizer
   * @param {any} tokenizerJson the content of tokenizer.json.
   */
  constructor(tokenizer, tokenizerJson) {
    this.tokenizer = tokenizer;
    const decoders = [tokenizerJson.decoder ?? {}, ...(tokenizerJson.decoder?.decoders ?? [])];
    this.hasByteTokens = decoders.some((decoder) => decoder.type === "ByteFallback");
  }

  /**
   * Returns the token ids of a text, with the special tokens that the tokenizer adds itself.
   * @param {string} text
   * @returns {number[]}
   */
  encode(text) {
    return this.tokenizer.encode(text).ids;
  }

  /**
   * Returns the text of token ids, without special tokens.
   * @param {number[]} ids
   * @returns {string}
   */
  decode(ids) {
    return ids.length ? this.tokenizer.decode(ids, { skip_special_tokens: true, clean_up_tokenization_spaces: false }) : "";
  }

  /**
   * Begins the text of an answer.
   * @param {number[]} prompt the tokens before it.
   */
  stream(prompt) {
    return new TextStream(this, prompt);
  }
}

/** The text of an answer that grows. What a later token may change is held back. */
class TextStream {
  /**
   * @param {Text} text
   * @param {number[]} prompt
   */
  constructor(text, prompt) {
    this.text = text;
    this.ids = prompt.slice(-CONTEXT);
    this.written = text.decode(this.ids).length;
  }

  /**
   * Takes tokens in, and returns the text that has become certain.
   * @param {number[]} tokens
   */
  push(tokens) {
    this.ids.push(...tokens);
    const last = this.ids.at(-1);
    const isByte = this.text.hasByteTokens && last !== undefined && BYTE.test(this.text.tokenizer.id_to_token(last) ?? "");
    const whole = this.text.decode(this.ids);
    if (isByte || whole.endsWith(REPLACEMENT)) return "";
    const piece = whole.slice(this.written);
    this.ids = this.ids.slice(-CONTEXT);
    this.written = this.text.decode(this.ids).length;
    return piece;
  }

  /** Returns what was held back, with U+FFFD for what is no character. */
  end() {
    return this.text.decode(this.ids).slice(this.written);
  }
}
