"""The verb `generate`."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

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
from specc.cli.prompt_source import ChatChoice, PromptForm, read_source, take_form
from specc.prompts import read_lines
from specc.runtime.errors import PromptError, RecipeError

if TYPE_CHECKING:
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
)
STDIN = "Read the prompt from standard input."
MESSAGES = "A JSON file of messages, or an object with messages, tools and documents. - is standard input."
CHAT = (
    "--chat makes the prompt a user's message, for the model's chat template; --raw takes it as it is. "
    "Default: --chat if the model has a template and the prompt no special tokens."
)
SYSTEM = "The system message of the chat."
PROMPTS = "Answer each line of this file: JSON with prompt, messages or turns. --output gets the answers."
OUTPUT = "Write one JSON line for each prompt of --prompts. Answers that the file already has are not made again."
TOKENS = "The largest number of new tokens."
RECIPE = "Decode by this recipe of the bundle. Default: the bundle's default recipe."
NO_SPECULATION = "Decode plainly, one token a step."
NO_GUARD = "Do not stop drafts that make decoding slower."
EXACT = (
    "Run every step at one width. The tokens are those of plain decoding at that width, for weights of any type. "
    "To decode plainly at the width of a recipe, also give --no-speculation and --recipe NAME."
)
ACCEPTANCE = "The acceptance rule: match, speculative or recursive. Default: the recipe's own."
TEMPERATURE = "The temperature of sampling. 0 is greedy. Default: the model's own, else 0."
TOP_P = "Sample from the smallest set of tokens that has this probability. Default: the model's own, else 1."
TOP_K = "Sample from the K likeliest tokens. 0 is all tokens. Default: the model's own, else 0."
SEED = "The seed of the rng. With the same seed, sampling gives the same tokens."
STOP = "End the answer before this text. May be repeated."
IGNORE_EOS = "Do not end the answer at an end-of-sequence token."
QUIET = "Write only the text: no summary and no notes."


def command(
    bundle: BundleArgument,
    source: Annotated[OptionalStr, typer.Argument(metavar="-", help=STDIN, show_default=False)] = None,
    prompt: Annotated[OptionalStr, option("TEXT", "The prompt.", "-p", "--prompt")] = None,
    prompt_file: Annotated[OptionalPath, option("FILE", "A file that holds the prompt.")] = None,
    messages: Annotated[OptionalPath, option("FILE", MESSAGES)] = None,
    chat: Annotated[bool | None, typer.Option("--chat/--raw", help=CHAT, show_default=False)] = None,
    system: Annotated[OptionalStr, option("TEXT", SYSTEM)] = None,
    prompts: Annotated[OptionalPath, option("FILE", PROMPTS)] = None,
    output: Annotated[OptionalPath, option("FILE", OUTPUT)] = None,
    max_new_tokens: Annotated[int, option("N", TOKENS, "-n", "--max-new-tokens", min=1)] = 128,
    recipe: Annotated[OptionalStr, option("NAME", RECIPE)] = None,
    no_speculation: Annotated[bool, flag("--no-speculation", NO_SPECULATION)] = False,
    no_guard: Annotated[bool, flag("--no-guard", NO_GUARD)] = False,
    exact: Annotated[bool, flag("--exact", EXACT)] = False,
    acceptance: Annotated[OptionalStr, option("RULE", ACCEPTANCE)] = None,
    temperature: Annotated[float | None, option("T", TEMPERATURE)] = None,
    top_p: Annotated[float | None, option("P", TOP_P)] = None,
    top_k: Annotated[OptionalInt, option("K", TOP_K)] = None,
    seed: Annotated[OptionalInt, option("S", SEED, min=0)] = None,
    stop: Annotated[StrList, option("S", STOP)] = None,
    ignore_eos: Annotated[bool, flag("--ignore-eos", IGNORE_EOS)] = False,
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
    """
    if no_speculation and recipe not in (None, "plain") and not exact:
        raise RecipeError(f"--no-speculation and --recipe {recipe} exclude each other; give one of them")
    choice = ChatChoice(chat=chat, system=system)
    options: RequestOptions = {
        "recipe": "plain" if no_speculation else recipe,
        "acceptance": acceptance,
        "temperature": temperature,
        "top_p": top_p,
        "top_k": top_k,
        "seed": seed,
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
        _answer(session, form, max_new_tokens, options, notes, quiet=quiet, json=json)
        return
    for line in notes:
        console.note(line)
    report = answer_all(session, lines, output, choice, max_new_tokens, options)
    if json:
        console.emit(asdict(report))
    elif not quiet:
        console.note(report.line())
    raise typer.Exit(1 if report.failed else 0)


def _answer(
    session: Session,
    form: PromptForm,
    max_new_tokens: int,
    options: RequestOptions,
    notes: list[str],
    *,
    quiet: bool,
    json: bool,
) -> None:
    """Answer one prompt: print the text or JSON, and the notes around it unless the user wants none."""
    whole: RequestOptions = {**options, **form.options}
    stream = session.stream(form.prompt, max_new_tokens, **whole)
    for line in (*notes, *([form.note] if form.note and not quiet else [])):
        console.note(line)
    answer = _run(session, stream, show=not json)
    if json:
        ending = {
            "token_ids": stream.token_ids,
            "finish_reason": stream.finish_reason,
            "stop_reason": stream.stop_reason,
        }
        console.emit({"text": answer, **ending, **stream.stats.to_json()})
    if quiet:
        return
    if empty := empty_note(answer, stream.finish_reason, form.chat, session.text.has_chat_template):
        console.note(empty)
    if not json:
        for line in summary(stream, max_new_tokens, session.bundle.manifest.model.context):
            console.note(line)


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
