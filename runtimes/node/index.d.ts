/** How to open a bundle. */
export interface OpenOptions {
  /** The path of libspecc. Default: `SPECC_LIBRARY` of the environment, or libspecc.so.0. */
  library?: string;
  /** The path of ONNX Runtime's library. Default: `SPECC_ONNXRUNTIME` of the environment, or libonnxruntime.so. */
  onnxruntime?: string;
  /** Threads of one engine, 4096 at most. Default: those that the bundle names, or all processors. */
  threads?: number;
}

/** What a request may ask for. */
export interface Options {
  /** Tokens of the answer at most. Default: 128. The context may have room for fewer; Infinity fills it. */
  maxNewTokens?: number;
  /** A recipe of the bundle. Default: the bundle's own. */
  recipe?: string;
}

/** What happened in a request. */
export interface Stats {
  /** The recipe that ran. It is another one than was asked for if libspecc lacks its drafter. */
  recipe: string;
  /** Tokens of the answer, an end-of-sequence token included; 0 if it was cancelled before the first. */
  newTokens: number;
  /** Steps with a draft. */
  drafts: number;
  /** Tokens of all drafts. */
  drafted: number;
  /** Drafted tokens that were accepted. */
  accepted: number;
  /** Calls of the target after the prompt. */
  targetCalls: number;
  /** Time up to the first token. */
  prefillSeconds: number;
  /** Time of the tokens after it. */
  seconds: number;
  /** 1 + accepted / drafts, or 1 without a draft. */
  meanAcceptanceLength: number;
}

/** A conversation: its rows of keys and values. It decodes one answer at a time. */
export interface Session {
  /** Decodes an answer greedily. Rows of an earlier prompt that begins alike are used again. */
  generate(prompt: number[], options?: Options): Promise<{ tokens: number[]; stats: Stats }>;
  /** Decodes an answer greedily, and yields the tokens of each step. Leaving the loop ends the answer. */
  stream(prompt: number[], options?: Options): AsyncGenerator<number[], Stats, void>;
  /** Continues a text, and yields pieces of text. */
  streamText(prompt: string, options?: Options): AsyncGenerator<string, Stats, void>;
  /** Ends the answer that is decoded, after the call of an engine that runs; a long prompt takes several. */
  cancel(): void;
  /** Ends the conversation, and before it an answer that is decoded, as `cancel` does. */
  close(): Promise<void>;
}

/** The bundle's tokenizer. */
export interface Text {
  /** Returns the token ids of a text, with the special tokens that the tokenizer adds itself. */
  encode(text: string): number[];
  /** Returns the text of token ids, without special tokens. */
  decode(ids: number[]): string;
}

/** A bundle: engines and weights, which its sessions share. */
export interface Model {
  /** What decodes: `libspecc 0.1.0`, or `onnxruntime-node 1.30.0`. */
  readonly runtime: string;
  /** The recipes of the bundle that this runtime can run. */
  readonly recipes: string[];
  /** Begins a conversation. */
  session(): Session;
  /** Reads the bundle's tokenizer, once. */
  text(): Promise<Text>;
  /** Closes the bundle, and its sessions before it. */
  close(): Promise<void>;
}

/** Opens a bundle, and checks each of its files. The error of a bundle that cannot be opened says why, in one line. */
export function open(bundle: string, options?: OpenOptions): Promise<Model>;
