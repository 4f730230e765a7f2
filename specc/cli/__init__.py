"""The command line: its entry point, its verbs, and how every error ends in one line.

Each verb has a file in this folder: its options, the call that does the work, and what it prints. Verbs import what
they need when they run, so that `specc --help` loads no numerical library.
"""

from __future__ import annotations

import errno
import functools
import shlex
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from specc import __version__
from specc.cli import (
    bench,
    cache,
    compile,
    console,
    doctor,
    export,
    generate,
    golden,
    recipes,
    show,
    swap,
    test,
    train,
    tune,
)
from specc.cli.arguments import examples, flag
from specc.cli.panels import PanelCommand
from specc.runtime import panics
from specc.runtime.errors import SpeccError
from specc.runtime.extras import package

# Some versions of typer have a copy of click, and others use click itself.
ClickException: Any = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")
# The packages of specc-compiler[compile].
COMPILER = {"torch", "transformers", "safetensors", "onnx", "onnxscript", "onnx_ir"}


@contextmanager
def one_line() -> Iterator[None]:
    """End every error that is not a fault of specc with one line and exit status 2.

    Raises:
        SystemExit: with 2 for bad input, 130 for an interrupt, 141 if the reader of standard output went away.
    """
    try:
        yield
        sys.stdout.flush()
        return
    except SpeccError as e:
        console.fail(str(e))
    except ImportError as e:
        absent = (e.name or "").split(".")[0]
        if absent not in {*COMPILER, "onnxruntime"}:
            raise
        part, extra = ("ONNX Runtime", "cpu") if absent == "onnxruntime" else ("the compiler", "compile")
        console.fail(f"this needs {part}, and {e.name} is not installed; pip install {package(extra)}")
    except MemoryError:
        console.fail("there is too little memory; free some, or take a smaller model or a smaller --max-seq-len")
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


OTHER_WORDS = {  # that users try for a verb
    "replay": "test",
    "verify": "test",
    "run": "generate",
    "chat": "generate",
    "build": "compile",
    "benchmark": "bench",
    "info": "show",
    "convert": "export",
}


class Verbs(TyperGroup):
    """A group of commands whose errors end in one line."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the verb that is called, or name the one that another word may mean."""
        if args and args[0] in OTHER_WORDS and self.get_command(ctx, args[0]) is None and not ctx.resilient_parsing:
            ctx.fail(f"No such command {args[0]!r}. Did you mean {OTHER_WORDS[args[0]]!r}?")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run a verb."""
        with one_line():
            return super().invoke(ctx)


app = typer.Typer(
    cls=Verbs,
    no_args_is_help=True,
    rich_markup_mode=None,  # Plain help never cuts the names of options.
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=examples(
        "specc compile HuggingFaceTB/SmolLM2-135M -o smollm.specc",
        'specc generate smollm.specc --prompt "def fibonacci("',
        "specc test smollm.specc",
    ),
)


def _print_version(requested: bool) -> None:
    if requested:
        print(f"specc {__version__}")
        raise typer.Exit()


@app.callback()
def specc(
    version: Annotated[bool, flag("--version", "Print the version.", callback=_print_version, is_eager=True)] = False,
) -> None:
    """Compile a language model so that it decodes several tokens a step, with the same output."""


app.command("compile", cls=PanelCommand, epilog=compile.EXAMPLES)(compile.command)
app.command("generate", cls=PanelCommand, epilog=generate.EXAMPLES)(generate.command)
app.command("test", epilog=test.EXAMPLES)(test.command)
app.command("show", epilog=show.EXAMPLES)(show.command)
app.add_typer(recipes.app, name="recipes")
app.command("doctor", epilog=doctor.EXAMPLES)(doctor.command)
app.command("bench", cls=PanelCommand, epilog=bench.EXAMPLES)(bench.command)
app.command("train", cls=PanelCommand, epilog=train.EXAMPLES)(train.command)
app.command("swap", epilog=swap.EXAMPLES)(swap.command)
app.command("tune", epilog=tune.EXAMPLES)(tune.command)
app.command("export", epilog=export.EXAMPLES)(export.command)
app.add_typer(golden.app, name="golden")
app.add_typer(cache.app, name="cache")


@functools.cache
def _commands() -> Any:
    """Build the verbs and their options from the functions above, once in a process that runs several verbs."""
    return typer.main.get_command(app)


def main(argv: list[str] | None = None) -> None:
    """Run the command line.

    Args:
        argv: the arguments. None takes those of this process.

    Raises:
        SystemExit: with 0, with 1 for a test that failed, 2 for bad input, 130 for an interrupt, 141 if the reader of
            standard output went away, 143 for SIGTERM.
    """
    if not console.fill_closed_streams():
        console.fail("standard output is closed; redirect it, to /dev/null if nothing shall be kept")
        raise SystemExit(2)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    with console.end_on_signals(), one_line(), warnings.catch_warnings():
        console.one_line_warnings()
        panics.silence()
        words = sys.argv[1:] if argv is None else argv
        try:
            status = _commands()(argv, prog_name="specc", obj=shlex.join(["specc", *words]), standalone_mode=False)
        except ClickException as e:
            _fail_usage(e)
            status = 2
        if status:
            raise SystemExit(status)


def _fail_usage(error: Any) -> None:
    """Write what is wrong with the arguments as one line, or the help text if there are none.

    Args:
        error: an error of click.
    """
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        return
    message = error.format_message().strip().rstrip(".")
    verb = error.ctx.command_path if getattr(error, "ctx", None) else "specc"
    console.fail(f"{message[:1].lower()}{message[1:]}; see: {verb} --help")


if __name__ == "__main__":
    main()
