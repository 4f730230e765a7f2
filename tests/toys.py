"""A toy model in numpy behind the runtime's own Engine: 64-bit mixing in place of attention.

What a slot's logits are depends on every row that it sees, on every position, and on each layer that ran; a wrong
commit, mask or depth changes tokens. A table of likely successors is common to all models, so that drafts agree.

    N  slots      S  rows in use, the slots' included      L  layers      C  capacity      V  vocabulary      K  ranks
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from specc.recipes import METHODS, Facts, prefill
from specc.runtime.block import Block, Frontier, Parents
from specc.runtime.draft import Accepted, Draft
from specc.runtime.engine import Engine
from specc.runtime.recipe import load_acceptance, load_drafter
from specc.runtime.sampling import Sampling
from specc.runtime.sequence import Cache, Sequence
from specc.runtime.session import decode
from specc.runtime.tree import Tree

LAYERS, CAPACITY, VOCABULARY = 4, 512, 24
SETTINGS: dict[str, dict[str, Any]] = {"layer-skip": {"skip_layers": [1], "skip_mlp": [2]}}  # what a search would find


def mix(x: np.ndarray) -> np.ndarray:
    """uint64 to uint64, every bit of the result depending on every bit (Stafford's mix 13)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(2**63, size=shape, dtype=np.uint64)


@cache
def successors(vocabulary: int) -> np.ndarray:
    """[V, V] log-probabilities of what follows what: a shuffled vocabulary, 0.9 less a rank."""
    rng = np.random.default_rng(1)
    return np.array([-0.9 * rng.permutation(vocabulary) for _ in range(vocabulary)])


class ToyKV:
    """The rows of one cache: a number a layer and token."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self.capacity = capacity
        self.rows_LC = np.zeros((LAYERS, capacity), np.uint64)

    def move(self, start: int, rows: list[int]) -> None:
        self.rows_LC[:, start : start + len(rows)] = self.rows_LC[:, rows]


class Toy:
    """The Runner of a block. `noise` is how far the rows can move the logits away from the table."""

    noise = 2.5

    def __init__(self, block: Block, rows: ToyKV, vocabulary: int) -> None:
        n, v = block.slots, vocabulary
        head = 1 if block.last_row else n
        inputs: dict[str, Any] = {"input_ids": (1, n), "past_len": (1,)}
        outputs: dict[str, Any] = {}
        if block.last_row:
            inputs["row"] = (1,)
        if isinstance(block.topology, Parents):
            inputs["parents"] = (n,)
        if isinstance(block.topology, Frontier):
            inputs |= {"mask": (n, block.topology.span), "depth": (n,)}
        for output in block.outputs:
            kind, _, k = output.partition(":")
            if kind == "top_k":
                outputs["top_ids"] = outputs["top_logprobs"] = (1, head, min(int(k), v))
            else:
                outputs[kind] = (1, head) if kind == "ids" else (1, head, v)
        self.block, self.rows = block, rows
        self.inputs = {k: np.zeros(shape, bool if k == "mask" else np.int64) for k, shape in inputs.items()}
        self.outputs = {
            k: np.zeros(shape, np.float32 if k in ("logits", "top_logprobs") else np.int64)
            for k, shape in outputs.items()
        }
        self.embedding_V, self.place_C = numbers(v, seed=len(block.model)), numbers(rows.capacity, seed=2)
        self.layer_L, self.token_V = numbers(LAYERS, seed=3), numbers(v, seed=4)
        self.table_VV = successors(v)

    def topology(self) -> tuple[np.ndarray, np.ndarray]:
        """What each slot sees of the last rows, and its position less the rows in use."""
        topology = self.block.topology
        if isinstance(topology, Frontier):
            return self.inputs["mask"], self.inputs["depth"]
        if isinstance(topology, Parents):
            topology = Tree((-1, *(int(p) for p in self.inputs["parents"][1:])))
        return topology.mask, topology.depth

    def run(self) -> None:
        block, past, n = self.block, int(self.inputs["past_len"][0]), self.block.slots
        mask_NT, depth_N = self.topology()
        position_N = past + depth_N
        assert position_N.min() >= 0 and max(position_N.max(), past + n - 1) < self.rows.capacity
        seen_NS = np.concatenate([np.ones((n, past + n), bool), mask_NT], 1)[:, -(past + n) :].astype(np.uint64)
        token_N = self.inputs["input_ids"][0]
        x_N = self.embedding_V[token_N]
        for layer in range(LAYERS if block.layers.exit_after is None else block.layers.exit_after):
            if layer not in block.layers.skip_attention:
                row_S = self.rows.rows_LC[layer, : past + n]
                row_S[past:] = mix(x_N + self.place_C[position_N] + self.layer_L[layer])
                x_N = mix(x_N + seen_NS @ row_S)
            if layer not in block.layers.skip_mlp:
                x_N = mix(x_N ^ self.layer_L[layer])
        self.head(token_N, x_N)

    def head(self, token_N: np.ndarray, x_N: np.ndarray) -> None:
        if self.block.last_row:
            row = self.inputs["row"]
            token_N, x_N = token_N[row], x_N[row]
        noise_NV = (mix(x_N[:, None] ^ self.token_V) >> np.uint64(11)) * 2.0**-53
        logits_NV = (self.table_VV[token_N] + self.noise * noise_NV).astype(np.float32)
        out = self.outputs
        out["ids"][0] = logits_NV.argmax(-1)
        if "logits" in out:
            out["logits"][0] = logits_NV
        if "top_ids" in out:
            best_NK = np.argsort(-logits_NV, -1, kind="stable")[:, : out["top_ids"].shape[-1]]
            total_N1 = np.log(np.exp(logits_NV).sum(-1, keepdims=True))
            out["top_ids"][0] = best_NK
            out["top_logprobs"][0] = np.take_along_axis(logits_NV, best_NK, -1) - total_N1


class World:
    """A toy bundle: engines by block, rows by cache name. What drafters learn and what the cache holds lasts."""

    def __init__(self, vocabulary: int = VOCABULARY, runner: type[Toy] = Toy, rows: type[ToyKV] = ToyKV) -> None:
        self.vocabulary, self.runner = vocabulary, runner
        self.stores: defaultdict[str, ToyKV] = defaultdict(rows)
        self.cache = Cache(self.stores["target"])
        self.prefill = self.engine(prefill())

    def engine(self, block: Block) -> Engine:
        store = self.stores[block.cache]
        return Engine(block.model, block, self.runner(block, store, self.vocabulary), store)

    def method(self, name: str, assistant: bool = False, acceptance: str = "", **parameters: Any) -> Decoder:
        """An entry of the table of methods, its blocks run by toys."""
        method = METHODS[name]
        settled = method.settle(SETTINGS.get(name, {}) | parameters)
        plan = method.plan(settled, Facts(LAYERS, self.vocabulary, assistant))
        accept = load_acceptance(acceptance or method.acceptance)
        sample = {"sample": True} if hasattr(accept, "needs_draft_probs") else {}
        engines = {role: self.engine(block) for role, block in plan.engines.items()}
        drafter = load_drafter(method.drafter)(**engines, **plan.arguments, **sample)
        return Decoder(self, drafter, [self.engine(block) for block in plan.verify], accept)


class Decoder:
    """The loop over one method's pieces."""

    def __init__(self, world: World, drafter: Any, verifiers: list[Engine], accept: Any) -> None:
        self.world, self.drafter, self.verifiers, self.accept = world, drafter, verifiers, accept

    def steps(self, seq: Sequence) -> Iterator[tuple[Draft, Accepted]]:
        """The runtime's loop below the last token of `seq`."""
        self.world.prefill.extend(seq.cache, seq.cache.sync(seq.tokens[:-1]))
        return decode(seq, self.drafter, self.verifiers, self.accept)

    def run(self, prompt: list[int], count: int, sampling: Sampling | None = None) -> tuple[list[int], int]:
        """`count` tokens after `prompt`, and how many drafted tokens were accepted for them."""
        seq, accepted = Sequence(list(prompt), self.world.cache, sampling or Sampling()), 0
        for _, kept in self.steps(seq):
            accepted += len(kept.slots) - 1
            if len(seq.tokens) >= len(prompt) + count:
                return seq.tokens[len(prompt) : len(prompt) + count], accepted
        raise AssertionError("the loop has no end")


def prompts(count: int, seed: int = 0, vocabulary: int = VOCABULARY) -> list[list[int]]:
    """Prompts of one token to a hundred."""
    rng = np.random.default_rng(seed)
    return [[int(t) for t in rng.integers(vocabulary, size=rng.integers(1, 100))] for _ in range(count)]


def cases() -> Mapping[str, dict[str, Any]]:
    """Every method of the table, and those that may have a draft model with and without one."""
    both = {"dynamic-tree with a draft model": {"name": "dynamic-tree", "assistant": True}}
    return {name: {"name": name, "assistant": "assistant-model" in m.needs} for name, m in METHODS.items()} | both


def tokenizer() -> Tokenizer:
    """Bytes as tokens, `th` as one, and `<eos>`."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = {name: i for i, name in enumerate([*letters, "th"])}
    made = Tokenizer(models.BPE(names, [("t", "h")]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(["<eos>"])
    return made
