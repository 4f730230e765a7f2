"""The command line: each verb reads its options, calls one function, and prints what came back."""

from __future__ import annotations

import errno
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from specc import __version__
from specc.cli import bench, console, tune
from specc.cli.arguments import BundleArgument, Count, DeviceOption, File, Json, Provider, Whose, Word, Words
from specc.cli.arguments import examples as _examples
from specc.cli.arguments import flag as _flag
from specc.cli.arguments import option as _option
from specc.runtime.errors import PromptError, RecipeError, SpeccError

if TYPE_CHECKING:
    from specc.runtime.stream import Stream

COMPILER = {"torch", "transformers", "safetensors", "onnx", "onnxscript", "onnx_ir"}  # what specc[compile] brings


@contextmanager
def one_line() -> Iterator[None]:
    """Every error that is not ours ends in one line and exit status 2."""
    try:
        yield
        sys.stdout.flush()
        return
    except SpeccError as e:
        console.fail(str(e))
    except ImportError as e:
        lacking = (e.name or "").split(".")[0]
        if lacking not in {*COMPILER, "onnxruntime"}:
            raise
        needed, extra = ("ONNX Runtime", "cpu") if lacking == "onnxruntime" else ("the compiler", "compile")
        console.fail(f"this needs {needed}, and {e.name} is not installed; pip install specc[{extra}]")
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except BrokenPipeError:
        console.drop_stdout()
        raise SystemExit(141) from None
    except OSError as e:
        console.drop_stdout()
        remedy = "; free some space, or choose another place" if e.errno == errno.ENOSPC else ""
        console.fail(f"{e.filename or 'standard output'}: {e.strerror or e}{remedy}")
    raise SystemExit(2)


class Verbs(TyperGroup):
    def invoke(self, ctx: Any) -> Any:
        with one_line():
            return super().invoke(ctx)


app = typer.Typer(
    cls=Verbs,
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,  # plain help: option names are never cut
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=_examples(
        "specc compile HuggingFaceTB/SmolLM2-135M -o smollm.specc",
        'specc generate smollm.specc --prompt "def fibonacci("',
        "specc test smollm.specc",
    ),
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"specc {__version__}")
        raise typer.Exit()


@app.callback()
def specc(
    version: Annotated[bool, _flag("--version", "Print the version.", callback=_version, is_eager=True)] = False,
) -> None:
    """The speculative-decoding compiler: several tokens a step, and the same output."""


COMPILE = _examples(
    "specc compile HuggingFaceTB/SmolLM2-135M -o smollm.specc",
    "specc compile ./model -o m.specc --recipe prompt-lookup --recipe early-exit",
    "specc compile ./model -o m.specc --set early-exit.assistant_early_exit=4",
    "specc compile ./model -o m.specc --assistant-model ./small",
    'specc compile ./model -o m.specc --tree "[(0,), (1,), (0, 0), (0, 0, 0)]"',
)
ALL_RECIPES = "What to compile; may be repeated. Without it: all that need neither a second model nor training."
SET = "A parameter of one recipe; may be repeated. Lists them: specc recipes NAME."
BACKEND = "What builds the engines: specc doctor lists them; may be repeated. Default: onnx."
TUNE = "Choose recipe, lengths, widths and trees as specc tune does; compiles twice where other trees pay."
DRAFT_DTYPE = "Type of the weights that drafts read: fp32, int8 or int4. It changes no output, only speed."
DTYPE = "Type of the weights: fp32, fp16, bf16, int8 or int4. Beside other backends, onnx stays fp32."
LOWERING = "Of ONNX: fast (ONNX Runtime's own operators) or portable (standard ones). Default: the backend's."
CAPABILITY = "The GPU to build TensorRT engines for, such as 8.9. Default: the one that is here."
INSIDE = "TensorRT engines hold their weights, instead of sharing one copy."
TEXT = "A text file to report perplexity on. Default: the golden prompts' own texts."
LENGTH = "Tokens that fit, prompt and answer. Default: the model's limit, 2048 at most."


@app.command("compile", epilog=COMPILE)
def compile_(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A hub id, or a directory with tokenizer and weights.")],
    output: Annotated[Path, _option("OUT", "The bundle, a directory to be made.", "-o", "--output")],
    recipe: Annotated[Words, _option("NAME", ALL_RECIPES)] = None,
    set_: Annotated[Words, _option("RECIPE.PARAMETER=VALUE", SET, "--set")] = None,
    assistant_model: Annotated[Word, _option("MODEL", "A small model with the same tokenizer, to draft.")] = None,
    num_speculative_tokens: Annotated[Count, _option("N", "Tokens a draft, for every recipe.", min=1)] = None,
    assistant_early_exit: Annotated[Count, _option("K", "Layers that an early exit runs.", min=1)] = None,
    prompt_lookup_num_tokens: Annotated[Count, _option("N", "Tokens copied from the prompt at most.", min=1)] = None,
    tree: Annotated[Word, _option("LITERAL", 'Paths of sibling ranks, such as "[(0,), (1,), (0, 0)]".')] = None,
    skip_layers: Annotated[Word, _option("3,4", "Layers that a layer-skipping draft leaves out.")] = None,
    max_seq_len: Annotated[Count, _option("N", LENGTH, min=1)] = None,
    prompts: Annotated[File, _option("FILE", 'Golden prompts, JSON lines {"prompt": "…"}.')] = None,
    golden_tokens: Annotated[int, _option("N", "Tokens decoded for each golden prompt.", min=1)] = 24,
    text: Annotated[File, _option("FILE", "A text to report the original's perplexity on, for specc test.")] = None,
    backend: Annotated[Words, _option("NAME", BACKEND)] = None,
    dtype: Annotated[Word, _option("T", DTYPE)] = None,
    tune: Annotated[bool, _flag("--tune", TUNE)] = False,
    draft_dtype: Annotated[str, _option("T", DRAFT_DTYPE)] = "int4",
    lowering: Annotated[Word, _option("L", LOWERING)] = None,
    compute_capability: Annotated[Word, _option("X.Y", CAPABILITY)] = None,
    weights_inside: Annotated[bool, _flag("--weights-inside", INSIDE)] = False,
    revision: Annotated[Word, _option("R", "A branch, tag or commit of the hub's repository.")] = None,
    trust_remote_code: Annotated[bool, _flag("--trust-remote-code", "Run Python code of the model's.")] = False,
    overwrite: Annotated[bool, _flag("--overwrite", "Replace the bundle OUT.")] = False,
    dump_graphs: Annotated[File, _option("DIR", "Write the graph after each pass as Python.")] = None,
    json: Json = False,
) -> None:
    """Compile a Hugging Face model into a bundle.

    Captures the model, builds the engines of each recipe, keeps golden outputs of the original, and measures the
    recipes on them; the fastest lossless one becomes the bundle's default.
    """
    from specc.cli import values

    parameters = values.settings(
        set_ or (),
        num_speculative_tokens=num_speculative_tokens,
        assistant_early_exit=assistant_early_exit,
        prompt_lookup_num_tokens=prompt_lookup_num_tokens,
        tree=values.tree(tree),
        skip_layers=values.layers("--skip-layers", skip_layers),
    )
    from specc.backends import Options as BuildOptions
    from specc.cli import tables
    from specc.compiler import Options, compile_bundle

    build = BuildOptions(lowering, compute_capability, weights_inside)
    with console.stages() as stage:
        report = compile_bundle(
            Options(
                model=model,
                output=output,
                recipes=recipe or (),
                parameters=parameters,
                assistant_model=assistant_model,
                revision=revision,
                trust_remote_code=trust_remote_code,
                max_seq_len=max_seq_len,
                prompts=prompts,
                golden_tokens=golden_tokens,
                text=text,
                backends=backend or ("onnx",),
                dtype=dtype,
                draft_dtype=draft_dtype,
                build=build,
                overwrite=overwrite,
                dump_graphs=dump_graphs,
                tune=tune,
                stage=stage,
            )
        )
    told = tables.compiled_json(report.bundle, report.seconds, report.peak_rss_bytes)
    console.emit(told) if json else console.out().print(tables.compiled(told))


GENERATE = _examples(
    'specc generate model.specc --prompt "def fibonacci("',
    "cat main.py | specc generate model.specc - --max-new-tokens 64",
    "specc generate model.specc --chat --prompt 'What is a tree?' --stop $'\\n\\n'",
    "specc generate model.specc --prompt-file p.txt --temperature 0.8 --seed 7",
    'specc generate model.specc --prompt "def f(" --no-speculation --json',
)
STDIN = "- reads the prompt from standard input."


@app.command(epilog=GENERATE)
def generate(
    bundle: BundleArgument,
    source: Annotated[Word, typer.Argument(metavar="-", help=STDIN, show_default=False)] = None,
    prompt: Annotated[Word, _option("TEXT", "The prompt.")] = None,
    prompt_file: Annotated[File, _option("FILE", "A file that holds the prompt.")] = None,
    chat: Annotated[bool, _flag("--chat", "The prompt is a user's message, for the model's chat template.")] = False,
    max_new_tokens: Annotated[int, _option("N", "Tokens at most.", min=1)] = 128,
    recipe: Annotated[Word, _option("NAME", "A recipe of the bundle. Default: the bundle's.")] = None,
    no_speculation: Annotated[bool, _flag("--no-speculation", "Decode plainly, a token a step.")] = False,
    no_guard: Annotated[bool, _flag("--no-guard", "Go on drafting where it does not pay.")] = False,
    acceptance: Annotated[Word, _option("RULE", "match, speculative or recursive. Default: the recipe's.")] = None,
    temperature: Annotated[float, _option("T", "0 is greedy.")] = 0.0,
    top_p: Annotated[float, _option("P", "Sample from the smallest set of this mass.")] = 1.0,
    top_k: Annotated[int, _option("K", "Sample from the K likeliest tokens; 0 from all.")] = 0,
    seed: Annotated[Count, _option("S", "Makes sampling repeatable.", min=0)] = None,
    stop: Annotated[Words, _option("S", "Text that ends the answer; may be repeated.")] = None,
    ignore_eos: Annotated[bool, _flag("--ignore-eos", "Go on after an end-of-sequence token.")] = False,
    device: DeviceOption = "cpu",
    execution_provider: Provider = None,
    backend: Whose = None,
    json: Json = False,
) -> None:
    """Decode a prompt, several tokens a step.

    The text goes to standard output as it comes, a summary to standard error.
    """
    text = _prompt(source, prompt, prompt_file)
    if no_speculation and recipe not in (None, "plain"):
        raise RecipeError(f"--no-speculation and --recipe {recipe} exclude each other; give one")
    import specc

    stream = specc.load(bundle, device, execution_provider, backend).stream(
        [{"role": "user", "content": text}] if chat else text,
        max_new_tokens, recipe="plain" if no_speculation else recipe, acceptance=acceptance, temperature=temperature,
        top_p=top_p, top_k=top_k, seed=seed, stop=stop or (), ignore_eos=ignore_eos, guard=not no_guard,
    )  # fmt: skip
    if json:
        text = "".join(stream)
        ending = {"token_ids": stream.token_ids, "finish_reason": stream.finish_reason}
        console.emit({"text": text, **ending, **stream.stats.to_json()})
    else:
        _print(stream)


def _prompt(source: str | None, prompt: str | None, file: Path | None) -> str:
    """The text that the one given source holds. Raises PromptError."""
    ways = "--prompt TEXT, --prompt-file FILE, or - for standard input"
    if source not in (None, "-"):
        raise PromptError(f"unexpected {source!r}; give the prompt as {ways}")
    if (source is not None) + (prompt is not None) + (file is not None) != 1:
        raise PromptError(f"give one prompt: {ways}")
    if prompt is not None:
        return prompt
    try:
        data = file.read_bytes() if file else sys.stdin.buffer.read()
        return data.decode("utf-8")
    except UnicodeDecodeError as e:
        raise PromptError(f"{file or 'standard input'} is no UTF-8 text ({e}); convert it") from e


def _print(stream: Stream) -> None:
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


TEST = _examples(
    "specc test model.specc",
    "specc test model.specc --recipe prompt-lookup --tolerance 0.0001",
    "specc test model.specc --reference HuggingFaceTB/SmolLM2-135M",
    "specc test model.specc --text book.txt",
)
REFERENCE = "Compute the expected tokens anew from this model, with transformers."
TOLERANCE = "Logit gap below which a divergence is a near-tie. Default: the bundle's."


@app.command(epilog=TEST)
def test(
    bundle: BundleArgument,
    reference: Annotated[Word, _option("MODEL", REFERENCE)] = None,
    text: Annotated[File, _option("FILE", TEXT)] = None,
    recipe: Annotated[Words, _option("NAME", "Replay by this recipe; may be repeated. Default: all.")] = None,
    tolerance: Annotated[float | None, _option("T", TOLERANCE, min=0.0)] = None,
    device: DeviceOption = "cpu",
    execution_provider: Provider = None,
    backend: Whose = None,
    json: Json = False,
) -> None:
    """Check every file and replay the golden outputs.

    Each case is decoded plainly and by every recipe. A divergence is a near-tie where the reference's own best two
    logits are closer than the tolerance. Exit status 1 if anything diverged, else 0. Perplexity is the target's own, by
    the bundle's engines, and the original model's where that is known: by --reference, or from compiling with --dtype
    int8 or int4, or with --text.
    """
    from specc.cli import tables
    from specc.exactness.replay import prove
    from specc.runtime.device import Device

    with console.stages() as stage:
        place = Device(device, execution_provider, backend)
        proof = prove(bundle, recipe or (), tolerance, reference, stage, place, text)
    told = proof.to_json()
    console.emit(told) if json else console.out().print(tables.proved(told))
    raise typer.Exit(0 if proof.passed else 1)


SHOW = _examples("specc show model.specc", "specc show model.specc --engine prefill", "specc show model.specc --json")


@app.command("show", epilog=SHOW)
def show_(
    bundle: BundleArgument,
    engine: Annotated[Word, _option("NAME", "One engine: its passes, tensors, tree and mask.")] = None,
    json: Json = False,
) -> None:
    """Show what is inside a bundle.

    Its model, caches, engines with the layers that each runs, recipes and files; or one engine in full.
    """
    from specc.cli import show
    from specc.runtime.bundle import open_bundle

    opened = open_bundle(bundle)
    if json:
        console.emit(show.describe_engine(opened, engine) if engine else show.describe(opened))
    elif engine:
        show.show_engine(opened, engine, console.out())
    else:
        show.show(opened, console.out())


RECIPES = _examples("specc recipes", "specc recipes prompt-lookup", "specc recipes --json")


@app.command(epilog=RECIPES)
def recipes(
    name: Annotated[Word, typer.Argument(metavar="NAME", help="One, with its parameters.", show_default=False)] = None,
    json: Json = False,
) -> None:
    """List the methods that can be compiled.

    What each one is, where it was published, what it needs; with a name, its parameters too.
    """
    from specc.cli import tables
    from specc.recipes import METHODS, method

    chosen = [method(name)] if name else list(METHODS.values())
    if json:
        console.emit([tables.method_json(m) for m in chosen])
    else:
        console.out().print(tables.one_method(chosen[0]) if name else tables.methods(chosen))


DOCTOR = _examples("specc doctor", "specc doctor --json")


@app.command("doctor", epilog=DOCTOR)
def doctor_(json: Json = False) -> None:
    """Show which backends and providers this machine can build with and run.

    Under the table stands what the others lack, and how to install it.
    """
    from specc.cli import doctor

    found = doctor.examine()
    console.emit([f.to_json() for f in found]) if json else console.out().print(doctor.report(found))


app.command("bench", epilog=bench.EXAMPLES)(bench.bench)
app.command("tune", epilog=tune.EXAMPLES)(tune.tune)


def main(argv: list[str] | None = None) -> None:
    """The entry point. Exits with 0, 1 (a test that failed), 2 (bad input) or 130 (interrupted)."""
    console.heed_signals()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    with one_line(), warnings.catch_warnings():
        console.one_line_warnings()
        app(argv, prog_name="specc")


if __name__ == "__main__":
    main()
