"""What `specc compile` takes, and what it reports."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from specc.backends import Options as BuildOptions
from specc.runtime.bundle import Bundle


def _show_nothing(title: str, done: int, total: int) -> None:
    """Show no progress."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """A set of options for one compile.

    Attributes:
        model: a hub id, or a directory with a checkpoint and a tokenizer.
        output: the bundle, a directory that the compile makes.
        recipes: names of the table; empty means all that need neither a second model nor training.
        parameters: values by recipe and parameter. Those under "" are for every recipe that has such a parameter.
        heads: directories of trained heads, for recipes that draft by one.
        assistant_model: a smaller model with the tokenizer of `model`, for recipes that draft by one.
        untuned_model: the model `assistant_model` as it was before its tuning, for recipes that compare the two.
        corpus: a folder of text files, or one file, for recipes that look up drafts in it.
        revision: a branch, tag or commit of the hub's repository.
        adapter: a directory that peft wrote; it is merged into the target's weights before anything else.
        trust_remote_code: run Python code that comes with the model.
        max_seq_len: tokens that fit, prompt and answer. None takes the model's own limit, 2048 at most.
        prompts: a file of golden prompts. None takes those of specc.
        golden_tokens: tokens that the original model decodes after each golden prompt.
        text: a text file on which the original's perplexity is measured.
        backends: names of backends; each builds every engine.
        dtype: type of the target's weights, see `specc.backends.typed`. None takes bf16 for a checkpoint whose values
            bf16 holds, where specc-kernels is installed, and else leaves it to the backends.
        lanes: sequences that one call of the engines with lanes runs. 1 builds no such engines.
        draft_dtype: type of the weights that draft engines read. It changes the speed, never the output. None takes
            int8 for trained heads, and int4 for other drafts.
        build: options for the backends.
        overwrite: replace a bundle that stands at `output`.
        dump_graphs: a directory that gets the graph after each pass, as Python.
        tune: choose as `specc tune` does, among chains of more widths; compile again if other trees are faster.
        stage: a function that is called as each stage begins, with its title, the stages done and the stages in all.
    """

    model: str
    output: str | Path
    recipes: Sequence[str] = ()
    parameters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    heads: Sequence[str | Path] = ()
    assistant_model: str | None = None
    untuned_model: str | None = None
    corpus: str | Path | None = None
    revision: str | None = None
    adapter: str | Path | None = None
    trust_remote_code: bool = False
    max_seq_len: int | None = None
    prompts: str | Path | None = None
    golden_tokens: int = 24
    text: str | Path | None = None
    backends: Sequence[str] = ("onnx",)
    dtype: str | None = None
    lanes: int = 1
    draft_dtype: str | None = None
    build: BuildOptions = field(default_factory=BuildOptions)
    overwrite: bool = False
    dump_graphs: str | Path | None = None
    tune: bool = False
    stage: Callable[[str, int, int], None] = field(default_factory=lambda: _show_nothing)

    @property
    def small_models(self) -> dict[str, str]:
        """Return the hub ids or directories of the smaller models, by the names that blocks have for them."""
        names = {"assistant": self.assistant_model, "untuned": self.untuned_model}
        return {name: source for name, source in names.items() if source}


@dataclass(frozen=True, kw_only=True)
class Report:
    """A finished compile.

    Attributes:
        bundle: the bundle, opened.
        seconds: wall-clock time.
        peak_rss_bytes: memory of the larger of its two processes, the one that compiles and the one that measures.
    """

    bundle: Bundle
    seconds: float
    peak_rss_bytes: int
