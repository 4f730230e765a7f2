"""Blocks: the model rewritten to run N token slots at once against a cache of keys and values.

Prefill, decode, draft and verify are blocks with different values. Every engine runs one block.
"""

from __future__ import annotations

import re
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property

from .errors import RecipeError, TreeError
from .tree import Tree

STATE = "state:"
WEIGHTS = ("fp32", "fp16", "bf16", "int8", "int4")
HIDDEN = "hidden"  # The input of a block that starts after a layer.
MIXTURE = "mixture"
TARGET_ROWS = "target_rows"
LOOP = "loop"  # The input of a block that runs one loop of a recursive model: which one, slot by slot.
INPUTS = ("state", HIDDEN, MIXTURE, TARGET_ROWS, LOOP)  # What a block can read besides tokens.
MOST_LANES = 256
MOST_GROUP = 1 << 16  # rows
KEPT = "kept"  # The output of a block that drops tokens of its tree: the slots of those that it keeps.
OUTPUT = re.compile(rf"ids|logits|top_k:[1-9]\d*|hidden:(-1|\d+)|{STATE}[a-z][a-z0-9_]*|next_state|{KEPT}")
PRUNED_OUTPUT = re.compile(rf"ids|logits|top_k:.*|{STATE}.*|{KEPT}")  # What a block with pruning can return.


@dataclass(frozen=True)
class Parents:
    """A topology that changes at each step: the parent vector is an input, `parents` [slots] int64."""

    slots: int

    def fits(self, tree: Tree) -> bool:
        """Return whether the block can run `tree`: any tree, if it has no more slots."""
        return tree.slots <= self.slots


@dataclass(frozen=True)
class Frontier:
    """A topology for the next slots of a growing tree: each sees chosen rows among the last `span` ones.

    The inputs are `mask` [slots, span] bool, whose last columns are the slots themselves, and `depth` [slots] int64,
    the position of a slot minus the number of rows before the slots. Drafters grow trees with it, level by level.
    """

    slots: int
    span: int

    def fits(self, tree: Tree) -> bool:
        """Return whether one call can run the whole of `tree`: only a chain, if it has no more slots."""
        return tree.is_chain and tree.slots <= self.slots


@dataclass(frozen=True)
class GuessTree:
    """A topology of tokens in a tree, with slots behind them that stand on no token and guess the tokens to come.

    Behind a token stands a chain of guesses, or none. A trained head of the model says what these slots read in the
    place of tokens. They see what a token in their place would see. A draft fills the slots of tokens alone.

    Attributes:
        parents: the parent of each slot. The slots of tokens come first.
        tokens: how many slots take tokens.
        head: the architecture of the head.

    The constructor raises TreeError if this is no tree, or if guesses branch.
    """

    parents: tuple[int, ...]
    tokens: int
    head: str

    def __post_init__(self) -> None:
        guesses = self.tree.parents[self.tokens :]
        if not 1 <= self.tokens < self.slots:
            raise TreeError(f"{self.tokens} of {self.slots} slots take tokens; give 1 to {self.slots - 1}")
        if len(set(guesses)) < len(guesses):
            raise TreeError(f"two guesses stand behind one slot in {guesses!r}; give each slot one guess at most")

    @property
    def slots(self) -> int:
        """How many slots there are, those of guesses included."""
        return len(self.parents)

    @cached_property
    def tree(self) -> Tree:
        """The tree of all slots, whose mask and depths are baked into the graph."""
        return Tree(self.parents)

    @cached_property
    def token_tree(self) -> Tree:
        """The tree of the slots that take tokens."""
        return Tree(self.parents[: self.tokens])

    @cached_property
    def guesses(self) -> tuple[tuple[int, ...], ...]:
        """For each slot that takes a token, the slots of the guesses behind it, in order."""
        behind: list[list[int]] = [[] for _ in range(self.tokens)]
        root = dict(enumerate(range(self.tokens)))
        for slot in range(self.tokens, self.slots):
            root[slot] = root[self.parents[slot]]
            behind[root[slot]].append(slot)
        return tuple(map(tuple, behind))

    def fits(self, tree: Tree) -> bool:
        """Return whether the slots of tokens can run `tree`."""
        return self.token_tree.fits(tree)

    def first(self, tokens: int) -> GuessTree:
        """Return the tree of the first tokens, with the guesses behind them.

        If all tokens have as many guesses, the guesses of any other choice of so many tokens have the same slots.

        Args:
            tokens: how many, 1 to `tokens`.
        """
        slots = [*range(tokens), *(slot for guesses in self.guesses[:tokens] for slot in guesses)]
        place = {slot: i for i, slot in enumerate(slots)}
        return GuessTree(tuple(place.get(self.parents[slot], -1) for slot in slots), tokens, self.head)


@dataclass(frozen=True)
class Layers:
    """A choice of layers: those of the model that a block leaves out, and the order of the others.

    Attributes:
        skip_attention: the layers whose attention is left out.
        skip_mlp: the layers whose MLP is left out.
        exit_after: how many layers run before the final norm and the head; None runs all.
        start_after: how many layers the block leaves out at the start, since it reads their hidden states; None reads
            tokens.
        parallel_group: attention reads what enters the first of so many layers; 1 reads what enters its own layer.
        bridge: the trained head of which a part stands in the place of layers that are left out; empty for none.
    """

    skip_attention: tuple[int, ...] = ()
    skip_mlp: tuple[int, ...] = ()
    exit_after: int | None = None
    start_after: int | None = None
    parallel_group: int = 1
    bridge: str = ""

    def __post_init__(self) -> None:
        if self.parallel_group < 1:
            raise RecipeError(f"parallel_group is {self.parallel_group}; give 1 or more")


@dataclass(frozen=True)
class Pruning:
    """Which tokens of a tree a block with guesses drops after some of its layers: the unlikely ones.

    The states there give early logits. The likeliest tokens go on with the guesses behind them: those of the highest
    sum of log-probabilities along the path, the first ones at a tie. So the pending token is among them, and so is the
    parent of each. The outputs have rows for what goes on alone.

    Attributes:
        after: how many layers run on all tokens.
        tokens: how many tokens go on, the pending one included.
    """

    after: int
    tokens: int


@dataclass(frozen=True)
class Block:
    """One engine's graph, as data.

    Attributes:
        topology: how many slots there are, and which slots see which.
        outputs: `ids` (argmax in the graph), `top_k:K` (ids and log-probabilities), `logits`, and `hidden:L` (after
            layer L; -1 is the last layer, before the final norm). `state:NAME` is what the trained head NAME reads of
            each row; `next_state` is what a recurrent head reads in the slot after. `kept` is the slots of the tokens
            that are left, ascending, in a block that drops some.
        layers: what is left out of the model.
        last_row: whether the head runs on one row only, which the input `row` names.
        weights: the type in which products read their weights, one of `WEIGHTS`.
        model: the model whose weights these are.
        cache: the name of the rows. Blocks with one cache name share rows.
        lanes: how many sequences one call runs, each over rows of its own. The tokens of all lanes stand in one line,
            lane after lane; each lane's slots have the topology.
        inputs: what the block reads in each slot besides a token: `state`, in the blocks of a trained head; `hidden`,
            the states after a layer, in blocks that start there; `mixture`, which says how much the token of each slot
            counts in this one, as slots may take sums of embeddings; `target_rows`, how many rows of the target a
            block sees that reads these. Its own rows stand beside them, in the same store. `loop` says which loop of a
            recursive model each slot runs; then `state` has what the loop before left.
        quantized_group: 0 reads all rows as they are. Otherwise rows older than the newest ones are read in 4 or 8
            bits, in groups of so many rows; see runtime/quantized_rows.py.
        quantized_bits: how many bits of these rows are read: 4, or 8 with their lower halves.
        pruning: which tokens of a tree with guesses go on after some layers; None keeps all.
    """

    topology: Tree | Parents | Frontier | GuessTree
    outputs: tuple[str, ...] = ("ids", "logits")
    layers: Layers = field(default_factory=Layers)
    _: KW_ONLY
    last_row: bool = False
    weights: str = "fp32"
    model: str = "target"
    cache: str = "target"
    lanes: int = 1
    inputs: tuple[str, ...] = ()
    quantized_group: int = 0
    quantized_bits: int = 4
    pruning: Pruning | None = None

    def __post_init__(self) -> None:
        for output in self.outputs:
            if not OUTPUT.fullmatch(output):
                raise RecipeError(
                    f"unknown output {output!r}; a block has ids, logits, top_k:K, hidden:LAYER, state:HEAD, "
                    "next_state, kept"
                )
        for name in self.inputs:
            if name not in INPUTS:
                raise RecipeError(f"unknown input {name!r}; a block can read {', '.join(INPUTS)}")
        if (HIDDEN in self.inputs) != (self.layers.start_after is not None):
            raise RecipeError("a block reads hidden states if it starts after a layer, and only then; give both")
        if LOOP in self.inputs and "state" not in self.inputs:
            raise RecipeError("a block that runs one loop reads the states that the loop before left; give state too")
        if self.weights not in WEIGHTS:
            raise RecipeError(f"unknown type of weights {self.weights!r}; choose one of {', '.join(WEIGHTS)}")
        if not 0 <= self.quantized_group <= MOST_GROUP:
            raise RecipeError(f"quantized_group is {self.quantized_group}; give 0 to {MOST_GROUP}")
        if self.quantized_bits not in (4, 8):
            raise RecipeError(f"quantized_bits is {self.quantized_bits}; give 4 or 8")
        self._check_lanes()
        self._check_pruning()

    def _check_pruning(self) -> None:
        """Refuse pruning of a block that has nothing to prune, or whose rows others read. Raises RecipeError."""
        if (KEPT in self.outputs) != (self.pruning is not None):
            raise RecipeError("a block returns the slots that it kept if it drops some, and only then; give both")
        if self.pruning is None:
            return
        topology, count = self.topology, self.pruning.tokens
        if not isinstance(topology, GuessTree) or len(set(map(len, topology.guesses))) > 1:
            raise RecipeError("only a tree whose tokens all have as many guesses is pruned; leave out pruning")
        if not 1 <= count <= topology.tokens:
            raise RecipeError(f"{count} of {topology.tokens} tokens go on; give 1 to {topology.tokens}")
        if self.pruning.after < 1:
            raise RecipeError(f"tokens are dropped after {self.pruning.after} layers; give 1 or more")
        if self.layers != Layers() or self.last_row or not all(map(PRUNED_OUTPUT.fullmatch, self.outputs)):
            raise RecipeError(
                "a block that drops tokens runs all layers and returns no hidden states; leave out pruning"
            )

    def _check_lanes(self) -> None:
        """Refuse lanes of blocks that run one sequence only. Raises RecipeError."""
        if not 1 <= self.lanes <= MOST_LANES:
            raise RecipeError(f"lanes is {self.lanes}; give 1 to {MOST_LANES}")
        if self.lanes > 1 and HIDDEN in self.inputs:
            raise RecipeError(f"a block of {self.lanes} lanes reads tokens; leave out start_after, or lanes")
        if self.lanes > 1 and TARGET_ROWS in self.inputs:
            raise RecipeError(f"a block of {self.lanes} lanes reads its own rows; leave out target_rows, or lanes")
        if self.lanes > 1 and self.quantized_group:
            raise RecipeError(f"a block of {self.lanes} lanes reads all rows as they are; leave out quantized_group")
        if self.lanes > 1 and isinstance(self.topology, GuessTree):
            raise RecipeError(f"a block of {self.lanes} lanes has tokens in all slots; leave out guesses, or lanes")
        if self.lanes > 1 and self.last_row:
            raise RecipeError(f"a block of {self.lanes} lanes returns all rows; leave out last_row, or lanes")

    @property
    def store(self) -> str:
        """The name of the cache whose store has the block's rows: another one's if it reads that one's rows too."""
        return "target" if TARGET_ROWS in self.inputs else self.cache

    @property
    def slots(self) -> int:
        """How many slots the block runs, those of all lanes and padding included."""
        return self.topology.slots * self.lanes

    @property
    def output_topology(self) -> Tree | Parents | Frontier | GuessTree:
        """Where the rows of the outputs stand, of a block that returns all: the topology, less what it drops."""
        if self.pruning is not None and isinstance(self.topology, GuessTree):
            return self.topology.first(self.pruning.tokens)
        return self.topology

    @property
    def rows(self) -> int:
        """How many rows the outputs have, but for states of trained heads."""
        return 1 if self.last_row else self.state_rows

    @property
    def state_rows(self) -> int:
        """How many rows states of trained heads have: one for each slot that the block does not drop."""
        return self.output_topology.slots * self.lanes

    @property
    def tree(self) -> Tree | None:
        """The tree that the graph holds for the tokens of a draft; None if an input says how they stand."""
        topology = self.topology
        if isinstance(topology, GuessTree):
            return topology.token_tree
        return topology if isinstance(topology, Tree) else None

    @property
    def is_chain(self) -> bool:
        """Tell whether the graph itself holds a chain as the topology, for all slots or for those of each lane."""
        return isinstance(self.topology, Tree) and self.topology.is_chain

    def fits(self, tree: Tree) -> bool:
        """Return whether this block, or one lane of it, can run `tree`. Unused slots are padding."""
        return self.topology.fits(tree)
