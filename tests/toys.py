"""A toy model in numpy behind the runtime's own Engine: 64-bit mixing takes the place of attention.

A slot's logits depend on every row that it sees, on every position, and on each layer that ran. So a wrong commit, mask
or depth changes tokens. All models share a table of likely successors, so that drafts agree with the target.

    N  slots      S  rows in use, the slots' included      L  layers      C  capacity      V  vocabulary      K  ranks
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Sequence as Tokens
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from specc.recipes import METHODS, Facts, HeadFacts, Method, committing, prefill
from specc.runtime.acceptance import Acceptance, with_parameters
from specc.runtime.block import HIDDEN, KEPT, LOOP, TARGET_ROWS, Block, Frontier, GuessTree, Layers, Parents
from specc.runtime.call import finish
from specc.runtime.corpus_index import CORPUS_FILE
from specc.runtime.draft import Accepted, Draft
from specc.runtime.drafters import Drafting
from specc.runtime.engine import Bind, Engine
from specc.runtime.loop import Decoding, stepping
from specc.runtime.method import load_acceptance, load_drafter
from specc.runtime.sampling import Sampling
from specc.runtime.sequence import Caches, KVStore, Sequence
from specc.runtime.stats import Stats
from specc.runtime.tree import Tree

LAYERS, CAPACITY, VOCABULARY = 4, 512, 24
STATE_SIZE = 8
LOOPS = 2  # of a draft model
HALVES = np.arange(0, 64, 16, dtype=np.uint64)  # float32 has whole numbers of 24 bits, so a state is four of 16.
STACKED = HeadFacts(stack=3, recurrent=False, attends=False)
SLOTS = HeadFacts(stack=3, recurrent=False, attends=False, in_model=True)
HEADS = {
    "amphista": HeadFacts(stack=3, recurrent=False),
    "blockwise": STACKED,
    "chimera": HeadFacts(),
    "clover": HeadFacts(context_layers=1),
    "clover_2": HeadFacts(context_layers=2),
    "eagle": HeadFacts(),
    "eagle3": HeadFacts(),
    "hydra": HeadFacts(attends=False),
    "hydra_plus_plus": HeadFacts(context_layers=1),
    "judge": HeadFacts(recurrent=False, attends=False),
    "kangaroo": HeadFacts(recurrent=False, taps=(1,)),
    "medusa": STACKED,
    "mtp": HeadFacts(),
    "peagle": HeadFacts(recurrent=False),
    "dflash": HeadFacts(guesses=6, recurrent=False),
    "adaeagle": HeadFacts(),
    "fspad": HeadFacts(),
    "falcon": HeadFacts(stack=2),
    "jakiro": HeadFacts(stack=3),
    "tandem": HeadFacts(),
    "mixture_of_attentions": HeadFacts(),
    "glide": HeadFacts(recurrent=False, reads_rows=True),
    "recurrent_drafter": HeadFacts(attends=False),
    **dict.fromkeys(("ppd", "hidden_transfer", "lexical_units", "speculative_streaming"), SLOTS),
    "m2r2": HeadFacts(recurrent=False, attends=False, in_model=True, draft_layers=Layers(exit_after=2, bridge="m2r2")),
    "s3d": replace(SLOTS, draft_layers=Layers(skip_attention=(1, 2), skip_mlp=(1, 2), bridge="s3d")),
}
READING_HEADS = {
    name: head for name, head in HEADS.items() if not (head.in_model or head.reads_rows) and head.reads == "target"
}
SHIFTS = [np.array(shift, np.uint64) for shift in (30, 27, 31)]  # numpy converts numbers at each use.
FACTORS = [np.array(factor, np.uint64) for factor in (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)]
# What a search for layers to skip would return, and trees that are large enough for all that can happen.
SKIPS: dict[str, Any] = {"skip_layers": [1], "skip_mlp": [2]}
SETS = {"skip_sets": [[[1], [1, 2]], [[2], [2]], [[], [1]]]}
SIZES: dict[str, Any] = {"num_speculative_tokens": 6, "guess_slots": 12}
SETTINGS = {"layer-skip": SKIPS, "draft-and-verify": SKIPS, "swift": SETS, "ppd": SIZES}


def mix(x: np.ndarray) -> np.ndarray:
    """Map uint64 to uint64, so that every bit of the result depends on every bit of `x` (Stafford's mix 13)."""
    x = (x ^ (x >> SHIFTS[0])) * FACTORS[0]
    x = (x ^ (x >> SHIFTS[1])) * FACTORS[1]
    mixed: np.ndarray = x ^ (x >> SHIFTS[2])
    return mixed


def random_uint64(*shape: int, seed: int = 0) -> np.ndarray:
    """Return an array of random numbers, always the same for one shape and seed."""
    return np.random.default_rng(seed).integers(2**63, size=shape, dtype=np.uint64)


@cache
def successors(vocabulary: int) -> np.ndarray:
    """Return [V, V] scores of each token after each other one: 0.9 less for each place in a shuffled vocabulary."""
    rng = np.random.default_rng(1)
    return np.array([-0.9 * rng.permutation(vocabulary) for _ in range(vocabulary)])


def state_taps(output: str) -> tuple[int, ...]:
    """Return the layers after which an output is a head's state; none for other outputs, and for any state."""
    head = output.removeprefix("state_")
    return HEADS[head].taps if head != output and head in HEADS else ()


def state_size(head: str) -> int:
    """Return the numbers of a state that a head reads: all bits of it if the head says after which layer."""
    return len(HALVES) if head in HEADS and HEADS[head].taps else STATE_SIZE


class ToyKV:
    """The rows of one cache: one number for each layer and token."""

    uncommitted = 0

    def __init__(self, capacity: int = CAPACITY) -> None:
        self.capacity = capacity
        self.rows_LC = np.zeros((LAYERS, capacity), np.uint64)

    def commit(self, start: int, slots: Tokens[int]) -> None:
        self.rows_LC[:, start : start + len(slots)] = self.rows_LC[:, [start + slot for slot in slots]]

    def rewind(self, rows: int) -> int:
        return rows

    def copy(self, source: KVStore, rows: int) -> int:
        if not isinstance(source, ToyKV):
            return 0
        self.rows_LC[:, :rows] = source.rows_LC[:, :rows]
        return rows


class Toy:
    """The Runner of a block. `noise` is how far the rows can move the logits away from the table of successors."""

    noise = 2.5

    def __init__(self, block: Block, rows: ToyKV, vocabulary: int) -> None:
        self.block, self.rows, self.vocabulary = block, rows, vocabulary
        self.stack = HEADS[block.model].stack if block.model in HEADS else 1
        self.inputs = self._make_inputs()
        self.outputs = self._make_outputs()
        self.embedding_V = random_uint64(vocabulary, seed=len(block.model))
        self.position_C = random_uint64(rows.capacity, seed=2)
        self.layer_L, self.token_V = random_uint64(LAYERS, seed=3), random_uint64(vocabulary, seed=4)
        self.table_VV = successors(vocabulary)
        self.left: list[int] | slice = slice(None)  # The slots that the last run did not drop.

    def _make_inputs(self) -> dict[str, np.ndarray]:
        topology, slots = self.block.topology, self.block.slots
        inputs = {"input_ids": np.zeros((1, slots), np.int64), "past_len": np.zeros(1, np.int64)}
        if self.block.last_row:
            inputs["row"] = np.zeros(1, np.int64)
        if isinstance(topology, Parents):
            inputs["parents"] = np.zeros(slots, np.int64)
        if isinstance(topology, Frontier):
            inputs["mask"] = np.zeros((slots, topology.span), bool)
            inputs["depth"] = np.zeros(slots, np.int64)
        if TARGET_ROWS in self.block.inputs:
            inputs[TARGET_ROWS] = np.zeros(1, np.int64)
        sizes = {"state": state_size(self.block.model), HIDDEN: len(HALVES), "mixture": slots, LOOP: LOOPS}
        names = [name for name in self.block.inputs if name in sizes]
        return inputs | {name: np.zeros((1, slots, sizes[name]), np.float32) for name in names}

    def _make_outputs(self) -> dict[str, np.ndarray]:
        rows = self.block.rows
        outputs = {}
        for output in self.block.outputs:
            kind, _, count = output.partition(":")
            stack = () if self.stack == 1 else (self.stack,)
            if kind == "ids":
                outputs["ids"] = np.zeros((1, rows), np.int64)
            elif kind == "top_k":
                ranks = min(int(count), self.vocabulary)
                outputs["top_ids"] = np.zeros((1, rows, *stack, ranks), np.int64)
                outputs["top_logprobs"] = np.zeros((1, rows, *stack, ranks), np.float32)
            elif kind == KEPT and self.block.pruning is not None:
                outputs[KEPT] = np.zeros((1, self.block.pruning.tokens), np.int64)
            elif kind == "hidden":
                outputs[f"hidden_{count}"] = np.zeros((1, rows, len(HALVES)), np.float32)
            elif "state" in kind:
                name = output.replace("state:", "state_")
                size = state_size(output.removeprefix("state:"))
                outputs[name] = np.zeros((1, self.block.state_rows, size), np.float32)
            else:
                outputs[kind] = np.zeros((1, rows, self.vocabulary), np.float32)
        return outputs

    def topology(self) -> tuple[np.ndarray, np.ndarray]:
        """Return which of the last rows each slot sees, and its position minus the rows in use."""
        topology = self.block.topology
        if isinstance(topology, Frontier):
            return self.inputs["mask"], self.inputs["depth"]
        if isinstance(topology, Parents):
            topology = Tree((-1, *(int(p) for p in self.inputs["parents"][1:])))
        if isinstance(topology, GuessTree):
            topology = topology.tree
        return topology.mask, topology.depth

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the token of each slot, and what the first layer reads."""
        token_N = self.inputs["input_ids"][0]
        if "mixture" in self.inputs:  # The likeliest token of a slot is all that it reads.
            token_N = token_N[self.inputs["mixture"][0].argmax(-1)]
        topology = self.block.topology
        if isinstance(topology, GuessTree):  # A guess reads the likeliest successor of what stands before it.
            token_N = token_N.copy()
            for slot in range(topology.tokens, topology.slots):
                token_N[slot] = self.table_VV[token_N[topology.parents[slot]]].argmax()
        x_N = self.embedding_V[token_N]
        if LOOP in self.inputs:  # Only the first loop reads the token.
            loop_N = self.inputs[LOOP][0].argmax(-1)
            state_N = self.inputs["state"][0, :, 0].astype(np.uint64)
            x_N = np.where(loop_N == 0, x_N, mix(state_N ^ self.layer_L[loop_N]))
        elif "state" in self.inputs:
            x_N = mix(x_N ^ self.inputs["state"][0, :, 0].astype(np.uint64))
        if HIDDEN in self.inputs:
            x_N = (self.inputs[HIDDEN][0].astype(np.uint64) << HALVES).sum(-1, dtype=np.uint64)
        return token_N, x_N

    def run(self) -> None:
        block, past, n = self.block, int(self.inputs["past_len"][0]), self.block.slots
        mask_NT, depth_N = self.topology()
        position_N = past + depth_N
        assert min(position_N.tolist()) >= 0 and max(*position_N.tolist(), past + n - 1) < self.rows.capacity
        visible_NT = mask_NT[:, -(past + n) :].astype(np.uint64)
        first = past + n - visible_NT.shape[1]  # Every slot sees the rows before it.
        token_N, x_N = self.read()
        self.left = self.pruned(token_N) if KEPT in self.outputs else slice(None)
        read_N, place_N, rounding = x_N, self.position_C[position_N], np.uint64(0)
        if block.quantized_group:  # Rounded rows are other rows.
            rounding = np.uint64(max(0, past // block.quantized_group - 1) * block.quantized_bits)
        first_layer = block.layers.start_after or 0
        self.show(first_layer - 1, x_N)
        for layer in range(first_layer, LAYERS if block.layers.exit_after is None else block.layers.exit_after):
            if layer % block.layers.parallel_group == 0:
                read_N = x_N
            if layer not in block.layers.skip_attention:
                row_S = self.rows.rows_LC[layer, : past + n]
                row_S[past:] = mix(read_N + place_N + self.layer_L[layer])
                x_N = mix(x_N + visible_NT @ row_S[first:] + row_S[:first].sum() + rounding)
            if layer not in block.layers.skip_mlp:
                x_N = mix(x_N ^ self.layer_L[layer])
            self.show(layer, x_N)
        for name in self.outputs:
            if "state" in name and not state_taps(name):  # float32 has whole numbers of 24 bits
                self.outputs[name][0] = (x_N[self.left] >> np.uint64(40))[:, None]
        self.head(token_N, x_N)

    def show(self, layer: int, x_N: np.ndarray) -> None:
        """Write the outputs that are states after a layer."""
        for name in self.outputs:
            if name == f"hidden_{layer}" or layer in state_taps(name):
                self.outputs[name][0] = (x_N[self.left, None] >> HALVES) & np.uint64(0xFFFF)

    def head(self, token_N: np.ndarray, x_N: np.ndarray) -> None:
        """Write the outputs that the block has."""
        token_N, x_N = token_N[self.left], x_N[self.left]
        if self.block.last_row:
            row = self.inputs["row"]
            token_N, x_N = token_N[row], x_N[row]
        if self.stack > 1:
            self.stacked(token_N)
            return
        noise_NV = (mix(x_N[:, None] ^ self.token_V) >> np.uint64(11)) * 2.0**-53
        logits_NV = (self.table_VV[token_N] + self.noise * noise_NV).astype(np.float32)
        self.outputs["ids"][0] = logits_NV.argmax(-1)
        if "logits" in self.outputs:
            self.outputs["logits"][0] = logits_NV
        if "top_ids" in self.outputs:
            best_NK = np.argsort(-logits_NV, -1, kind="stable")[:, : self.outputs["top_ids"].shape[-1]]
            total_N1 = np.log(np.exp(logits_NV).sum(-1, keepdims=True))
            self.outputs["top_ids"][0] = best_NK
            self.outputs["top_logprobs"][0] = np.take_along_axis(logits_NV, best_NK, -1) - total_N1

    def pruned(self, token_N: np.ndarray) -> list[int]:
        """Choose tokens by the table of successors. Return the slots of those that are kept, and of their guesses."""
        topology, pruning = self.block.topology, self.block.pruning
        assert isinstance(topology, GuessTree) and pruning is not None
        parents = topology.token_tree.parents
        own = [0.0, *(self.table_VV[token_N[parents[slot]], token_N[slot]] for slot in range(1, len(parents)))]
        kept_slots = likeliest(parents, own, pruning.tokens)
        self.outputs[KEPT][0] = kept_slots
        return [*kept_slots, *(slot for token in kept_slots for slot in topology.guesses[token])]

    def stacked(self, token_N: np.ndarray) -> None:
        """Write the tokens of stacked heads: the likeliest successors, those of the likeliest one, and so on."""
        for head in range(self.stack):
            logits_NV = self.table_VV[token_N]
            best_NV = np.argsort(-logits_NV, -1, kind="stable")
            best_NK = best_NV[:, : self.outputs["top_ids"].shape[-1]]
            total_N1 = np.log(np.exp(logits_NV).sum(-1, keepdims=True))
            self.outputs["top_ids"][0, :, head] = best_NK
            self.outputs["top_logprobs"][0, :, head] = np.take_along_axis(logits_NV, best_NK, -1) - total_N1
            token_N = best_NV[:, 0]


class Circle(Toy):
    """A runner that counts: after each token it finds the next number likeliest, and after the last one the first."""

    noise = 0.0

    def __init__(self, block: Block, rows: ToyKV, vocabulary: int) -> None:
        super().__init__(block, rows, vocabulary)
        numbers = np.arange(vocabulary)
        self.table_VV = -1.0 * ((numbers - numbers[:, None] - 1) % vocabulary)


def likeliest(parents: Tokens[int], own: Tokens[float], count: int) -> list[int]:
    """Choose the slots of a tree whose paths have the largest sums, the first ones at a tie; return them in order.

    Args:
        parents: the parent of each slot.
        own: what each slot adds to the sum of its path, at most 0.
        count: how many to choose.
    """
    sums = [np.float32(own[0])]
    for slot in range(1, len(parents)):
        sums.append(sums[parents[slot]] + np.float32(own[slot]))
    return sorted(sorted(range(len(parents)), key=lambda slot: (-sums[slot], slot))[:count])


def step(request: Decoding) -> tuple[Draft, Accepted]:
    """Take one step of a request, whose calls run one after another. Return the draft, and what was accepted of it."""
    return finish(stepping(request), request.stats.charge)


@cache
def corpus(vocabulary: int) -> Path:
    """Write the index of a text in which likely successors follow one another, and return its file."""
    rng, best = np.random.default_rng(5), np.argsort(-successors(vocabulary))
    tokens = [0]
    for rank in rng.choice(2, size=600, p=[0.7, 0.3]):
        tokens.append(int(best[tokens[-1], rank]))
    return write_corpus(tokens, Path(mkdtemp()))


def write_corpus(tokens: list[int], directory: Path) -> Path:
    """Write the index of a text, by sorting its suffixes, and return its file."""
    suffixes = sorted(range(len(tokens)), key=lambda start: tokens[start:])
    np.save(directory / CORPUS_FILE, np.array([tokens, suffixes], np.int32))
    return directory / CORPUS_FILE


def toy_facts(method: Method, vocabulary: int, assistant: bool) -> Facts:
    """Return the facts of a toy model."""
    has_corpus = "corpus" in method.needs
    return Facts(LAYERS, vocabulary, assistant, HEADS, LAYERS if assistant else 0, has_corpus, LOOPS)


class World:
    """A toy bundle: engines by block, rows by cache name. What drafters learn and what the cache holds lasts."""

    def __init__(
        self, vocabulary: int = VOCABULARY, runner: type[Toy] = Toy, rows: Callable[[], ToyKV] = ToyKV
    ) -> None:
        self.vocabulary, self.runner = vocabulary, runner
        self.stores: defaultdict[str, ToyKV] = defaultdict(rows)
        self.caches = Caches(self.stores.__getitem__)
        self.cache = self.caches["target"]
        self.prefill = self.engine(committing(prefill(), READING_HEADS))

    def engine(self, block: Block) -> Engine:
        """Make an engine of a block over the rows of its cache name."""
        store = self.stores[block.cache]
        bind = self.bind(block) if LOOP in block.inputs else None  # Each loop has rows of its own.
        return Engine(block.model, block, self.runner(block, store, self.vocabulary), store, bind)

    def bind(self, block: Block) -> Bind:
        """Return what runs a block over other rows."""
        return lambda store: self.runner(block, store, self.vocabulary) if isinstance(store, ToyKV) else None

    def method(self, name: str, assistant: bool = False, acceptance: str = "", **parameters: Any) -> Decoder:
        """Make an entry of the table of methods, with toys for its blocks.

        Args:
            name: the method.
            assistant: whether there is a draft model.
            acceptance: a rule in the place of the method's own.
            **parameters: the method's parameters that differ from the defaults.
        """
        method = METHODS[name]
        values = method.settle(SETTINGS.get(name, {}) | parameters)
        blocks = method.plan(values, toy_facts(method, self.vocabulary, assistant))
        accept = with_parameters(load_acceptance(acceptance or method.acceptance), {} if acceptance else blocks.rule)
        wishes = {
            "sample": accept.needs_draft_probs,
            "keep_logits": accept.needs_draft_logits,
            "keep_difference": accept.needs_draft_difference,
            "replacement": accept.needs_replacement,
        }
        options = {name: True for name, wish in wishes.items() if wish}
        whole = {block: self.engine(committing(block, READING_HEADS)) for block in blocks.verify}
        parts = {
            role: whole[block] for role, block in blocks.engines.items() if role in blocks.parts and block in whole
        }
        engines = {role: parts.get(role) or self.engine(block) for role, block in blocks.engines.items()}
        drafter_class = load_drafter(method.drafter)
        arguments = dict(blocks.arguments)
        for argument in arguments.keys() & set(drafter_class.files):
            arguments[argument] = corpus(self.vocabulary)
        drafter = drafter_class(**engines, **arguments, **options)
        return Decoder(self, drafter, list(whole.values()), accept)


class Decoder:
    """The decoding loop over one method's parts."""

    def __init__(self, world: World, drafter: Any, verifiers: list[Engine], accept: Acceptance) -> None:
        self.world, self.drafter, self.verifiers, self.accept = world, drafter, verifiers, accept

    def steps(self, seq: Sequence) -> Iterator[tuple[Draft, Accepted]]:
        """Run the runtime's loop from the last token of `seq` on."""
        self.world.prefill.extend(seq.cache, seq.cache.sync(seq.tokens[:-1]))
        decoding = self.open(seq)
        while True:
            yield step(decoding)

    def open(self, seq: Sequence) -> Decoding:
        """Begin to decode a sequence."""
        return Decoding(
            seq=seq,
            drafting=self.drafter.open(seq),
            verifiers=self.verifiers,
            accept=self.accept,
            stats=Stats(recipe="toy"),
        )

    def run(self, prompt: list[int], count: int, sampling: Sampling | None = None) -> tuple[list[int], int]:
        """Return `count` tokens after `prompt`, and how many drafted tokens were accepted for them."""
        seq, hits = Sequence(list(prompt), self.world.caches, sampling or Sampling()), 0
        for _, accepted in self.steps(seq):
            hits += len(accepted.slots) - 1
            if len(seq.tokens) >= len(prompt) + count:
                return seq.tokens[len(prompt) : len(prompt) + count], hits
        raise AssertionError("the loop ended, and it must not")

    def drafts(
        self, prompt: list[int], steps: int = 40, sampling: Sampling | None = None
    ) -> Iterator[tuple[Draft, int]]:
        """Yield the drafts of a run, each with the number of calls of the drafter's engine that it took."""
        seq = Sequence(list(prompt), self.world.caches, sampling or Sampling())
        calls = self.drafter.engine.calls
        for (draft, _), _ in zip(self.steps(seq), range(steps), strict=False):
            yield draft, self.drafter.engine.calls - calls
            calls = self.drafter.engine.calls


def propose(drafting: Drafting[Any]) -> Draft:
    """Return the next draft of a drafting, whose calls run alone."""
    return finish(drafting.propose(drafting.seq.room))


def prompts(count: int, seed: int = 0, vocabulary: int = VOCABULARY) -> list[list[int]]:
    """Return random prompts of one token to a hundred."""
    rng = np.random.default_rng(seed)
    return [[int(t) for t in rng.integers(vocabulary, size=rng.integers(1, 100))] for _ in range(count)]


def cases() -> Mapping[str, dict[str, Any]]:
    """Return the arguments of `World.method` for each lossless method, twice if a draft model is possible."""
    both = {f"{name} with a draft model": {"name": name, "assistant": True} for name in ("dynamic-tree", "rasd")}
    lossless = {name: m for name, m in METHODS.items() if m.lossless}
    return {name: {"name": name, "assistant": "assistant-model" in m.needs} for name, m in lossless.items()} | both


def tokenizer() -> Tokenizer:
    """Make a tokenizer with a token for each byte, one for `th`, and `<eos>`."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = {name: i for i, name in enumerate([*letters, "th"])}
    bpe = Tokenizer(models.BPE(names, [("t", "h")]))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.add_special_tokens(["<eos>"])
    return bpe
