"""The verb `generate`."""

from __future__ import annotations

import sys
from pathlib import Path
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
    examples,
    flag,
    option,
)
from specc.runtime.errors import PromptError, RecipeError

if TYPE_CHECKING:
    from specc.runtime.stream import Stream

EXAMPLES = examples(
    'specc generate model.specc --prompt "def fibonacci("',
    "cat main.py | specc generate model.specc - --max-new-tokens 64",
    "specc generate model.specc --chat --prompt 'What is a tree?' --stop $'\\n\\n'",
    "specc generate model.specc --prompt-file p.txt --temperature 0.8 --seed 7",
    'specc generate model.specc --prompt "def f(" --no-speculation --json',
)
STDIN = "Read the prompt from standard input."
CHAT = "Treat the prompt as a user's message, for the model's chat template."
RECIPE = "Decode by this recipe of the bundle. Default: the bundle's default recipe."
NO_SPECULATION = "Decode plainly, one token a step."
NO_GUARD = "Do not stop drafts that make decoding slower."
EXACT = (
    "Run every step at one width. The tokens are those of plain decoding at that width, for weights of any type. "
    "With --no-speculation and --recipe NAME: decode plainly at NAME's width."
)
ACCEPTANCE = "The acceptance rule: match, speculative or recursive. Default: the recipe's own."
TEMPERATURE = "The temperature of sampling. 0 is greedy."
TOP_P = "Sample from the smallest set of tokens that has this probability."
TOP_K = "Sample from the K likeliest tokens. 0 is all tokens."
SEED = "The seed of the rng. With the same seed, sampling gives the same tokens."
STOP = "End the answer before this text. May be repeated."
IGNORE_EOS = "Do not end the answer at an end-of-sequence token."
SOURCES = "--prompt TEXT, --prompt-file FILE, or - for standard input"


def command(
    bundle: BundleArgument,
    source: Annotated[OptionalStr, typer.Argument(metavar="-", help=STDIN, show_default=False)] = None,
    prompt: Annotated[OptionalStr, option("TEXT", "The prompt.")] = None,
    prompt_file: Annotated[OptionalPath, option("FILE", "A file that holds the prompt.")] = None,
    chat: Annotated[bool, flag("--chat", CHAT)] = False,
    max_new_tokens: Annotated[int, option("N", "The largest number of new tokens.", min=1)] = 128,
    recipe: Annotated[OptionalStr, option("NAME", RECIPE)] = None,
    no_speculation: Annotated[bool, flag("--no-speculation", NO_SPECULATION)] = False,
    no_guard: Annotated[bool, flag("--no-guard", NO_GUARD)] = False,
    exact: Annotated[bool, flag("--exact", EXACT)] = False,
    acceptance: Annotated[OptionalStr, option("RULE", ACCEPTANCE)] = None,
    temperature: Annotated[float, option("T", TEMPERATURE)] = 0.0,
    top_p: Annotated[float, option("P", TOP_P)] = 1.0,
    top_k: Annotated[int, option("K", TOP_K)] = 0,
    seed: Annotated[OptionalInt, option("S", SEED, min=0)] = None,
    stop: Annotated[StrList, option("S", STOP)] = None,
    ignore_eos: Annotated[bool, flag("--ignore-eos", IGNORE_EOS)] = False,
    device: DeviceOption = "cpu",
    execution_provider: ProviderOption = None,
    backend: BackendOption = None,
    allow_native_code: NativeCodeOption = False,
    json: JsonOption = False,
) -> None:
    """Continue a prompt, several tokens a step.

    The text goes to standard output as it comes. A summary goes to standard error.
    """
    text = _read_prompt(source, prompt, prompt_file)
    if no_speculation and recipe not in (None, "plain") and not exact:
        raise RecipeError(f"--no-speculation and --recipe {recipe} exclude each other; give one of them")
    import specc

    stream = specc.load(bundle, device, execution_provider, backend, allow_native_code=allow_native_code).stream(
        [{"role": "user", "content": text}] if chat else text,
        max_new_tokens,
        recipe="plain" if no_speculation else recipe,
        acceptance=acceptance,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        seed=seed,
        stop=stop or (),
        ignore_eos=ignore_eos,
        guard=not no_guard,
        exact=recipe if exact and no_speculation and recipe not in (None, "plain") else exact,
    )
    if json:
        answer = "".join(stream)
        ending = {"token_ids": stream.token_ids, "finish_reason": stream.finish_reason}
        console.emit({"text": answer, **ending, **stream.stats.to_json()})
    else:
        _print(stream)


def _read_prompt(source: str | None, prompt: str | None, file: Path | None) -> str:
    """Read the prompt from the one source that the user names.

    Args:
        source: `-` for standard input, or None.
        prompt: the prompt itself, or None.
        file: a file that holds it, or None.

    Raises:
        PromptError: there is no source or more than one, or it does not hold UTF-8 text.
    """
    if source not in (None, "-"):
        raise PromptError(f"unexpected {source!r}; give the prompt as {SOURCES}")
    if sum(value is not None for value in (source, prompt, file)) != 1:
        raise PromptError(f"give one prompt: {SOURCES}")
    if prompt is not None:
        return prompt
    try:
        data = file.read_bytes() if file else sys.stdin.buffer.read()
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise PromptError(f"{file or 'standard input'} is not UTF-8 text ({e}); convert it to UTF-8") from e


def _print(stream: Stream) -> None:
    """Print the text as it comes, and then a summary of the request."""
    piece = ""
    for piece in stream:
        sys.stdout.write(piece)
        sys.stdout.flush()
    if not piece.endswith("\n"):
        print()
    stats = stream.stats
    speed = f"{stats.new_tokens} tokens, {stats.tokens_per_second:.1f} tokens/s, recipe {stats.recipe}"
    length, rate = stats.mean_acceptance_length, stats.draft_acceptance_rate
    console.note(f"{speed}, mean_acceptance_length {length:.2f}, draft_acceptance_rate {rate:.2f}")
