"""The verb `generate`."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from specc.cli import console
from specc.cli.arguments import (
    BackendOption,
    BundleArgument,
    DeviceOption,
    JsonOption,
    NativeCodeOption,
    OptionalInt,
    OptionalPath,
    OptionalStr,
    ProviderOption,
    StrList,
    ThreadsOption,
    examples,
    flag,
    option,
)
from specc.cli.generate_batch import answer_all
from specc.cli.generate_notes import empty_note, sampling_notes, summary
from specc.cli.generate_processors import (
    cut_warning,
    logprobs_json,
    logprobs_lines,
    parse_biases,
    read_grammar,
    read_schema,
)
from specc.cli.generate_suggestions import show_suggestions
from specc.cli.prompt_source import ChatChoice, PromptForm, read_source, take_form
from specc.prompts import read_lines
from specc.runtime.errors import PromptError, RecipeError

if TYPE_CHECKING:
    from specc.exactness.divergence import TextDivergence
    from specc.runtime.request import RequestOptions
    from specc.runtime.session import Session
    from specc.runtime.stream import Stream

EXAMPLES = examples(
    "specc generate model.specc -p 'What is a tree?' -n 64",
    "specc generate model.specc -p 'What is a tree?' --system 'Be brief.'",
    'specc generate model.specc --raw -p "def fibonacci("',
    "cat main.py | specc generate model.specc - --raw --quiet",
    "specc generate model.specc --messages chat.json --temperature 0.8 --seed 7",
    "specc generate model.specc --prompts in.jsonl --output out.jsonl",
    'specc generate model.specc -p "def f(" --no-speculation --json',
    "specc generate model.specc -p 'The tree' --raw --suggestions 3 -n 10",
    "specc generate model.specc -p 'Describe a person.' --json-schema person.json",
    "specc generate model.specc -p 'Yes?' --regex '(yes|no)' --logprobs 2 --json",
)
DIVERGENCE = "Decode plainly too, with one seed, and say how many tokens differ. For lossy recipes."
STDIN = "Read the prompt from standard input."
PROMPT_FILE = "A file that holds the prompt."
MESSAGES = "A JSON file of messages, or an object with messages, tools and documents. - is standard input."
CHAT = (
    "Make the prompt a user's message, for the model's chat template. "
    "Default: if the model has a template and the prompt no special tokens."
)
RAW = "Take the prompt as it is, without the chat template."
SYSTEM = "The system message of the chat."
PROMPTS = (
    "Answer each line of this file: JSON with prompt, messages or turns. --output gets the answers. "
    "One prompt is answered after another, also by a bundle with lanes."
)
OUTPUT = "Write one JSON line for each prompt of --prompts. Answers that the file already has are not made again."
TOKENS = "The largest number of new tokens."
RECIPE = "Decode by this recipe of the bundle. Default: the bundle's default recipe."
NO_SPECULATION = "Decode plainly, one token a step."
NO_GUARD = "Do not stop drafts that make decoding slower."
EXACT = (
    "Run every step at one width. The tokens are those of plain decoding at that width, for weights of any type. "
    "Recipes that verify trees are refused. "
    "To decode plainly at the width of a recipe, also give --no-speculation and --recipe NAME."
)
ACCEPTANCE = (
    "The acceptance rule: match, speculative, recursive or kseq (lossless), typical, top_beta, confidence, distance, "
    "trust, guided, proxy or enriched (lossy), or contrastive. Default: the recipe's own. "
    "At temperature 0 the lossless ones and typical are match."
)
TEMPERATURE = "The temperature of sampling. 0 is greedy. Default: the model's own, else 0."
TOP_P = "Sample from the smallest set of tokens that has this probability. Default: the model's own, else 1."
TOP_K = "Sample from the K likeliest tokens. 0 is all tokens. Default: the model's own, else 0."
MIN_P = (
    "Sample from the tokens that have this share of the likeliest one's probability. Default: the model's own, else 0."
)
REPETITION = (
    "Make tokens of prompt and answer less likely, by a number above 1. Default: the model's own, else 1, no change."
)
FREQUENCY = "Subtract this from a token's logit for each time that the answer has it, -2 to 2."
PRESENCE = "Subtract this from a token's logit if the answer has it, -2 to 2."
BIAS = "Add a number from -100 to 100 to the logit of a token id. May be repeated."
BAD_WORDS = "Forbid this word in the answer. May be repeated."
MIN_TOKENS = "Do not end the answer before it has so many tokens."
LOGPROBS = (
    "Give each token's log-probability, and those of the N likeliest ones at its place: after the text, or with --json."
)
SCHEMA = "Answer in JSON by this schema, a file or its text. Needs llguidance, the extra `grammar`."
REGEX = "Answer with text that matches this regular expression as a whole. Needs llguidance."
LARK = "Answer by this grammar, a file in llguidance's dialect of Lark. Needs llguidance."
SEED = "The seed of the rng. With the same seed, sampling gives the same tokens."
STOP = "End the answer before this text. May be repeated, up to 1000 times with 100,000 characters in all."
IGNORE_EOS = "Do not end the answer at an end-of-sequence token."
SUGGESTIONS = "Give up to N short texts that may follow, one a line. Lossy. Needs a recipe such as superposed."
QUIET = "Write only the text: no summary and no notes."


def command(
    bundle: BundleArgument,
    source: Annotated[OptionalStr, typer.Argument(metavar="-", help=STDIN, show_default=False)] = None,
    prompt: Annotated[OptionalStr, option("TEXT", "The prompt.", "-p", "--prompt", rich_help_panel="Prompt")] = None,
    prompt_file: Annotated[OptionalPath, option("FILE", PROMPT_FILE, rich_help_panel="Prompt")] = None,
    messages: Annotated[OptionalPath, option("FILE", MESSAGES, rich_help_panel="Prompt")] = None,
    chat: Annotated[bool, flag("--chat", CHAT, rich_help_panel="Prompt")] = False,
    raw: Annotated[bool, flag("--raw", RAW, rich_help_panel="Prompt")] = False,
    system: Annotated[OptionalStr, option("TEXT", SYSTEM, rich_help_panel="Prompt")] = None,
    prompts: Annotated[OptionalPath, option("FILE", PROMPTS, rich_help_panel="Prompt")] = None,
    output: Annotated[OptionalPath, option("FILE", OUTPUT, rich_help_panel="Prompt")] = None,
    max_new_tokens: Annotated[
        int, option("N", TOKENS, "-n", "--max-new-tokens", min=1, rich_help_panel="Decoding")
    ] = 128,
    recipe: Annotated[OptionalStr, option("NAME", RECIPE, rich_help_panel="Decoding")] = None,
    no_speculation: Annotated[bool, flag("--no-speculation", NO_SPECULATION, rich_help_panel="Decoding")] = False,
    no_guard: Annotated[bool, flag("--no-guard", NO_GUARD, rich_help_panel="Decoding")] = False,
    exact: Annotated[bool, flag("--exact", EXACT, rich_help_panel="Decoding")] = False,
    acceptance: Annotated[OptionalStr, option("RULE", ACCEPTANCE, rich_help_panel="Decoding")] = None,
    temperature: Annotated[float | None, option("T", TEMPERATURE, rich_help_panel="Choice of tokens")] = None,
    top_p: Annotated[float | None, option("P", TOP_P, rich_help_panel="Choice of tokens")] = None,
    top_k: Annotated[OptionalInt, option("K", TOP_K, rich_help_panel="Choice of tokens")] = None,
    min_p: Annotated[float | None, option("P", MIN_P, rich_help_panel="Choice of tokens")] = None,
    seed: Annotated[OptionalInt, option("S", SEED, min=0, rich_help_panel="Choice of tokens")] = None,
    repetition_penalty: Annotated[float | None, option("P", REPETITION, rich_help_panel="Choice of tokens")] = None,
    frequency_penalty: Annotated[float | None, option("P", FREQUENCY, rich_help_panel="Choice of tokens")] = None,
    presence_penalty: Annotated[float | None, option("P", PRESENCE, rich_help_panel="Choice of tokens")] = None,
    logit_bias: Annotated[StrList, option("TOKEN=BIAS", BIAS, rich_help_panel="Choice of tokens")] = None,
    bad_words: Annotated[StrList, option("WORD", BAD_WORDS, rich_help_panel="Choice of tokens")] = None,
    min_new_tokens: Annotated[OptionalInt, option("N", MIN_TOKENS, rich_help_panel="Choice of tokens")] = None,
    logprobs: Annotated[OptionalInt, option("N", LOGPROBS, rich_help_panel="Choice of tokens")] = None,
    json_schema: Annotated[OptionalStr, option("FILE|TEXT", SCHEMA, rich_help_panel="Form of the answer")] = None,
    regex: Annotated[OptionalStr, option("REGEX", REGEX, rich_help_panel="Form of the answer")] = None,
    lark: Annotated[OptionalPath, option("FILE", LARK, rich_help_panel="Form of the answer")] = None,
    stop: Annotated[StrList, option("S", STOP, rich_help_panel="Decoding")] = None,
    ignore_eos: Annotated[bool, flag("--ignore-eos", IGNORE_EOS, rich_help_panel="Decoding")] = False,
    divergence: Annotated[bool, flag("--divergence", DIVERGENCE, rich_help_panel="Decoding")] = False,
    suggestions: Annotated[OptionalInt, option("N", SUGGESTIONS, min=1, rich_help_panel="Decoding")] = None,
    threads: ThreadsOption = None,
    device: DeviceOption = "cpu",
    execution_provider: ProviderOption = None,
    backend: BackendOption = None,
    allow_native_code: NativeCodeOption = False,
    quiet: Annotated[bool, flag("--quiet", QUIET)] = False,
    json: JsonOption = False,
) -> None:
    """Answer a message or continue a prompt, several tokens a step.

    The text goes to standard output as it comes. A summary goes to standard error: tokens, speed, and why the answer
    ended. With --prompts and --output, many prompts are answered. The exit status is then 1 if a prompt failed.
    It is also 1 if the length cuts an answer that follows a schema or a grammar.
    """
    if no_speculation and recipe not in (None, "plain") and not exact:
        raise RecipeError(f"--no-speculation and --recipe {recipe} exclude each other; give one of them")
    _check_one_answer(prompts, {"--divergence": divergence, "--suggestions": suggestions is not None})
    if chat and raw:
        raise PromptError("--chat and --raw exclude each other; give one of them")
    _check_logprobs(logprobs, text_alone=quiet and not json and output is None)
    choice = ChatChoice(chat=chat if chat or raw else None, system=system)
    options: RequestOptions = {
        "recipe": "plain" if no_speculation else recipe,
        "acceptance": acceptance,
        "temperature": temperature,
        "top_p": top_p,
        "top_k": top_k,
        "min_p": min_p,
        "seed": secrets.randbits(32) if divergence and seed is None else seed,
        "repetition_penalty": repetition_penalty,
        "frequency_penalty": frequency_penalty,
        "presence_penalty": presence_penalty,
        "logit_bias": parse_biases(logit_bias or ()),
        "bad_words": bad_words,
        "min_new_tokens": min_new_tokens,
        "logprobs": logprobs,
        "json_schema": read_schema(json_schema),
        "regex": regex,
        "lark": read_grammar("--lark", lark),
        "stop": stop or (),
        "ignore_eos": ignore_eos,
        "guard": not no_guard,
        "exact": recipe if exact and no_speculation and recipe not in (None, "plain") else exact,
    }
    if (prompts is None) != (output is None):
        raise PromptError("--prompts FILE and --output FILE belong together; give both of them")
    sources = source, prompt, prompt_file, messages
    if prompts is not None and sources != (None, None, None, None):
        raise PromptError("--prompts FILE holds all prompts; leave out --prompt, --prompt-file, --messages and -")
    lines = read_lines(prompts) if prompts else []
    request = "" if lines else read_source(*sources)
    import specc

    session = specc.load(
        bundle, device, execution_provider, backend, threads=threads, allow_native_code=allow_native_code
    ).conversation
    notes = [] if quiet else sampling_notes(session.bundle.manifest.model, options)
    if output is None:
        form = take_form(request, session.text, choice)
        if suggestions is not None:
            show_suggestions(session, form.prompt, suggestions, max_new_tokens, recipe, json=json)
            return
        _answer(session, form, max_new_tokens, options, notes, quiet=quiet, json=json, compare=divergence)
        return
    for line in notes:
        console.note(line)
    report = answer_all(session, lines, output, choice, max_new_tokens, options)
    if json:
        console.emit(asdict(report))
    elif not quiet:
        console.note(report.line())
    raise typer.Exit(1 if report.failed else 0)


def _check_one_answer(prompts: Path | None, options: Mapping[str, bool]) -> None:
    """Refuse options that are for one answer beside a file of prompts.

    Args:
        prompts: the file; None if there is none.
        options: whether the user gave each of them, by its name.
    """
    for name in [name for name, wish in options.items() if wish and prompts is not None]:
        raise PromptError(f"{name} is for one answer, and --prompts has many; leave out one of them")


def _check_logprobs(count: int | None, *, text_alone: bool) -> None:
    """Refuse --logprobs where the text alone is written."""
    if count is not None and text_alone:
        raise PromptError(f"--quiet leaves out what --logprobs {count} writes; add --json, or leave out --quiet")


def _answer(
    session: Session,
    form: PromptForm,
    max_new_tokens: int,
    options: RequestOptions,
    notes: list[str],
    *,
    quiet: bool,
    json: bool,
    compare: bool,
) -> None:
    """Answer one prompt: print the text or JSON, and the notes around it unless the user wants none.

    With `compare`, plain decoding answers it too, and the answers are compared.

    Raises:
        typer.Exit: the answer was cut before it was whole by its grammar; the status is 1.
    """
    whole: RequestOptions = {**options, **form.options}
    stream = session.stream(form.prompt, max_new_tokens, **whole)
    for line in (*notes, *([form.note] if form.note and not quiet else [])):
        console.note(line)
    answer = _run(session, stream, show=not json)
    difference = _difference(session, stream, form, max_new_tokens, whole) if compare else None
    if json:
        ending: dict[str, Any] = {
            "token_ids": stream.token_ids,
            "finish_reason": stream.finish_reason,
            "stop_reason": stream.stop_reason,
        }
        if stream.logprobs is not None:
            ending["logprobs"] = logprobs_json(stream.logprobs, session.text)
        if difference is not None:
            ending["divergence"] = asdict(difference)
        console.emit({"text": answer, **ending, **stream.stats.to_json()})
    if not quiet:
        _describe(session, stream, form, answer, max_new_tokens, difference, json=json)
    if warning := cut_warning(stream, whole, session.text):
        console.note(f"specc: warning: {warning}")
        raise typer.Exit(1)


def _describe(
    session: Session,
    stream: Stream,
    form: PromptForm,
    answer: str,
    max_new_tokens: int,
    difference: TextDivergence | None,
    *,
    json: bool,
) -> None:
    """Write the notes after an answer; with `json` only those that the JSON does not have."""
    if stream.logprobs is not None and not json:
        for line in logprobs_lines(stream.logprobs, session.text):
            console.note(line)
    if empty := empty_note(answer, stream.finish_reason, form.chat, session.text.has_chat_template):
        console.note(empty)
    if difference is not None:
        console.note(f"{difference.changed:.0%} of the tokens are not those of plain decoding")
    if not json:
        for line in summary(stream, max_new_tokens, session.bundle.manifest.model.context):
            console.note(line)


def _difference(
    session: Session, stream: Stream, form: PromptForm, max_new_tokens: int, options: RequestOptions
) -> TextDivergence:
    """Answer a prompt by plain decoding too, and compare the tokens."""
    from specc.exactness.divergence import compare_texts

    plain: RequestOptions = {**options, "recipe": "plain", "acceptance": None, "exact": False}
    other = session.generate(form.prompt, max_new_tokens, **plain)
    return compare_texts(stream.token_ids, other.token_ids)


def _run(session: Session, stream: Stream, *, show: bool) -> str:
    """Run a request to its end and return the text. Print it as it comes if it is to be shown."""
    prompt_tokens = stream.prompt_tokens

    def reading() -> str:
        return f"reading the prompt: {min(len(session.cache), prompt_tokens)} of {prompt_tokens} tokens"

    with console.waiting(reading):
        first = next(stream, "")
    pieces = [first]
    if show:
        sys.stdout.write(first)
        sys.stdout.flush()
    for piece in stream:
        pieces.append(piece)
        if show:
            sys.stdout.write(piece)
            sys.stdout.flush()
    text = "".join(pieces)
    if show and not text.endswith("\n"):
        print()
    return text
