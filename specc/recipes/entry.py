"""What an entry of the table of methods is made of. No torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from specc.runtime.block import Block, Layers
from specc.runtime.errors import RecipeError, nearest

Values = Mapping[str, Any]  # a value of each parameter, by name
NAMED_LAYERS = ("skip_layers", "skip_attention", "skip_mlp", "skip_sets")  # parameters that name layers to skip


@dataclass(frozen=True, kw_only=True)
class HeadFacts:
    """A few facts of a trained head on which a plan may depend.

    Attributes:
        stack: how many tokens it guesses from one state, one after the other.
        guesses: how many tokens one call guesses by slots that stand on no token; 0 if it has no such slots.
        recurrent: whether it returns the state for its own next slot.
        attends: whether it attends to the tokens before, so that it has rows of its own.
        context_layers: how many layers the tokens of the text run, and drafts do not.
        in_model: whether it is a part of the model's own run, so that it has no states and no blocks.
        draft_layers: the layers of the model that its drafts run, if it is a part of the model's own run.
        reads_rows: whether it reads the model's rows of keys and values, and no states.
        reads: the model whose states it reads, `target` or `assistant`.
        taps: the layers after which it reads them.
    """

    stack: int = 1
    guesses: int = 0
    recurrent: bool = True
    attends: bool = True
    context_layers: int = 0
    in_model: bool = False
    draft_layers: Layers = field(default_factory=Layers)
    reads_rows: bool = False
    reads: str = "target"
    taps: tuple[int, ...] = ()


class Family(Enum):
    """A kind of methods, by where their drafts come from. Lists of recipes are grouped by it."""

    NONE = "No drafts"
    TEXT = "Drafts copied from the text or from a corpus"
    GUESSES = "Drafts from the model's own last answers"
    ITSELF = "Drafts by a part or a copy of the model itself"
    SECOND_MODEL = "Drafts by a second, smaller model"
    ROUTING = "Two models that take turns, without verification of every token"
    HEADS = "Drafts by trained heads"
    OTHER = "Other methods"


@dataclass(frozen=True)
class Facts:
    """A few facts of the model on which a plan may depend.

    Attributes:
        layers: how many it has.
        vocab_size: token ids are below it.
        assistant: whether there is a draft model.
        heads: the trained heads by their architectures.
        assistant_layers: layers of the draft model; 0 if there is none.
        corpus: whether the bundle has a corpus.
        assistant_loops: how often the draft model runs its block of layers; 1 unless it is recursive.
    """

    layers: int
    vocab_size: int
    assistant: bool = False
    heads: Mapping[str, HeadFacts] = field(default_factory=dict)
    assistant_layers: int = 0
    corpus: bool = False
    assistant_loops: int = 1

    @property
    def reading_heads(self) -> tuple[str, ...]:
        """The heads that read states of the model, which its blocks return where they commit rows."""
        readers = {name: head for name, head in self.heads.items() if not (head.in_model or head.reads_rows)}
        return tuple(name for name, head in readers.items() if head.reads == "target")


@dataclass(frozen=True)
class Parameter:
    """A parameter of a method.

    Attributes:
        default: its value unless the user gives one. None leaves the choice to the method, as `help` says.
        help: what it means.
        paper: its values in the paper or in the authors' code; empty if they say nothing of it.
    """

    default: Any
    help: str
    paper: str = ""


class LayerSearch(Enum):
    """A way to choose the layers that a draft skips, where the user names none. The compiler runs it."""

    SKIP_SOME = "skip the sublayers without which chains are fastest, one at least"
    SKIP_SETS = "find several sets of such sublayers, among which the drafter chooses while it decodes"
    SKIP_IF_FASTER = "skip the sublayers without which chains are fastest, or none"


@dataclass(frozen=True)
class MethodBlocks:
    """A method's blocks.

    Attributes:
        verify: the target's blocks, narrowest first; a step runs the first that holds its draft.
        engines: the drafter's blocks, by the name of its argument.
        arguments: the drafter's other arguments.
        rule: parameters of the acceptance rule that differ from its defaults.
        parts: those of `engines` that are parts of the target. They commit rows, so --draft-dtype does not apply.
    """

    verify: tuple[Block, ...]
    engines: Mapping[str, Block] = field(default_factory=dict)
    arguments: Mapping[str, Any] = field(default_factory=dict)
    rule: Mapping[str, Any] = field(default_factory=dict)
    parts: frozenset[str] = frozenset()

    @property
    def all(self) -> tuple[Block, ...]:
        """The blocks that verify, and those of the drafter."""
        return (*self.verify, *self.engines.values())


@dataclass(frozen=True, kw_only=True)
class Method:
    """A published method: an entry of the table.

    Attributes:
        try_when: when a user should try it, for a reader who knows no method: one sentence.
        about: what it does, in five sentences.
        departures: where it departs from the paper, and why, a sentence or two each.
        family: where its drafts come from.
        topology: which shape drafts have; a word of `axes.TOPOLOGIES`.
        length: what says how long a draft is; a word of `axes.LENGTHS`.
        schedule: how drafting and verifying take turns; a word of `axes.SCHEDULES`.
        drafter: a file in runtime/drafters/, such as "early-exit" for early_exit.py.
        acceptance: a file in runtime/acceptance/.
        plan: turns a value of each parameter into blocks; raises RecipeError for a value out of range.
        by_default: whether `specc compile` without `--recipe` compiles it. A default compile has one method of a kind.
        needs: options of `specc compile` without which the method cannot be compiled.
        search: fills the parameters that name layers to skip.
        head: the architecture of the trained head that it drafts by; empty for none.
        optional_head: that of a trained head without which it can be compiled too; empty for none.
        trained_as: the recipe by whose name `specc train` trains its head or its draft model; empty for its own name.
        training_needs: the options of `specc train` without which its head cannot be trained, with their values.
    """

    name: str
    title: str
    try_when: str = ""
    about: str = ""
    paper: str = ""
    departures: tuple[str, ...] = ()
    family: Family = Family.OTHER
    drafter: str
    topology: str
    length: str = "fixed"
    schedule: str = "serial"
    plan: Callable[[Values, Facts], MethodBlocks]
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    acceptance: str = "match"
    lossless: bool = True
    by_default: bool = True
    needs: tuple[str, ...] = ()
    search: LayerSearch | None = None
    head: str = ""
    optional_head: str = ""
    trained_as: str = ""
    training_needs: str = ""

    @property
    def training(self) -> str:
        """The command that trains its head; empty if it reads none."""
        if not (self.head or self.optional_head):
            return ""
        words = ("specc train MODEL", self.training_needs, f"--recipe {self.trained_as or self.name} -o head")
        return " ".join(filter(None, words))

    def settle(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Complete the values that a user gives by the defaults.

        Raises:
            RecipeError: the method has no parameter of that name. The message names the nearest.
        """
        for name in values:
            if name not in self.parameters:
                raise RecipeError(f"recipe {self.name} has no parameter {name!r}; {nearest(name, self.parameters)}")
        return {name: values.get(name, p.default) for name, p in self.parameters.items()}

    def searches(self, values: Mapping[str, Any]) -> bool:
        """Tell whether the compiler searches for layers: the method asks for it, and the values name none."""
        return self.search is not None and all(values.get(name) is None for name in NAMED_LAYERS)
