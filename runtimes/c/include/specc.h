/* libspecc: bundles of `specc compile` from any language. A small C interface over ONNX Runtime's.
 *
 * Tokens go in and come out. Text is the caller's: tokenizer.json of the bundle belongs to Hugging Face's `tokenizers`.
 * Decoding is greedy: the tokens are those of plain decoding by the model, whatever recipe runs.
 *
 * Every function that returns an int returns 0, or another number if it failed. Then specc_error() says why, in one line.
 * A model may be used by several threads at once, a session by one at a time.
 */
#ifndef SPECC_H
#define SPECC_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(_WIN32)
#define SPECC_API __declspec(dllexport)
#else
#define SPECC_API __attribute__((visibility("default")))
#endif

typedef struct specc_model specc_model;     /* A bundle: engines and weights, which its sessions share. */
typedef struct specc_session specc_session; /* A conversation: its rows of keys and values, and its tables of drafts. */

/* How to open a bundle. Zeros are the defaults. */
typedef struct specc_options {
  const char* onnxruntime; /* The path of ONNX Runtime's library. Default: $SPECC_ONNXRUNTIME, or libonnxruntime.so. */
  int threads;             /* Threads of one engine, 4096 at most. Default: those that the bundle names, or all processors. */
  char* error;             /* Where to write why the bundle cannot be opened, or NULL; for callers whose calls run on */
  size_t error_size;       /* another thread than the one that reads. Its size in bytes, the last 0 included. */
} specc_options;

/* What happened in a request. */
typedef struct specc_stats {
  char recipe[64];              /* The recipe that ran. It is another one than was asked for if this library lacks its drafter. */
  size_t new_tokens;            /* Tokens of the answer, an end-of-sequence token included. A cancelled one may have none. */
  size_t drafts;                /* Steps with a draft. */
  size_t drafted;               /* Tokens of all drafts. */
  size_t accepted;              /* Those that were accepted. */
  size_t target_calls;          /* Calls of the target after the prompt. */
  double prefill_seconds;       /* Time up to the first token. */
  double seconds;               /* Time of the tokens after it. */
  double mean_acceptance_length; /* 1 + accepted / drafts, or 1 without a draft. */
  char error[512];              /* Why the request failed; empty if it did not. It may be cut. */
} specc_stats;

/* Is called with the tokens of each step. `user` is the caller's. Any other return value than 0 ends the answer. */
typedef int (*specc_on_tokens)(void* user, const int64_t* tokens, size_t count);

/* The version of this library, such as "0.1.0". */
SPECC_API const char* specc_version(void);

/* Why the last call of this thread failed. The text is valid until the thread's next call. */
SPECC_API const char* specc_error(void);

/* Opens a bundle, and checks each of its files. `options` may be NULL. `model` gets NULL if it fails. */
SPECC_API int specc_open(const char* path, const specc_options* options, specc_model** model);

/* Closes a bundle. Its sessions must be closed before. NULL is fine. */
SPECC_API void specc_close(specc_model* model);

/* The recipes of the bundle that this library can run, `index` from 0 on; NULL behind the last one. */
SPECC_API const char* specc_recipe(const specc_model* model, size_t index);

/* Begins a conversation. */
SPECC_API int specc_session_open(specc_model* model, specc_session** session);

/* Ends it. An answer that another thread decodes ends as by specc_cancel, and the function waits for that. A function that gets
 * tokens may call it, too: then the session lives until its answer has ended. NULL is fine. */
SPECC_API void specc_session_close(specc_session* session);

/* Decodes greedily. Rows of an earlier prompt that begins alike are used again.
 *
 * prompt        `prompt_tokens` token ids, at least one.
 * recipe        its name, or NULL for the bundle's default.
 * max_new_tokens  tokens of the answer at most, 1 or more. The context may have room for fewer, and SIZE_MAX fills it.
 * on_tokens     is called with the tokens of each step; may be NULL. A session that decodes refuses another answer, also there.
 * stats         gets what happened; may be NULL.
 */
SPECC_API int specc_generate(specc_session* session, const int64_t* prompt, size_t prompt_tokens, const char* recipe,
                             size_t max_new_tokens, specc_on_tokens on_tokens, void* user, specc_stats* stats);

/* Decodes as specc_generate does, without a function: for callers to whom each call back costs time.
 *
 * tokens        gets the place of the answer, which is the session's and stays until its next request; NULL if it fails. It may
 *               not be NULL itself.
 * stats         gets what happened; may not be NULL. stats->new_tokens says how many tokens there are.
 */
SPECC_API int specc_generate_all(specc_session* session, const int64_t* prompt, size_t prompt_tokens, const char* recipe,
                                 size_t max_new_tokens, const int64_t** tokens, specc_stats* stats);

/* Ends the answer that another thread decodes, after the call of an engine that runs. A prompt takes a call for every 128 tokens
 * or fewer, so it need not be read to its end: then the answer has no tokens. Tokens that came stay. */
SPECC_API void specc_cancel(specc_session* session);

#ifdef __cplusplus
}
#endif
#endif
