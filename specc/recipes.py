"""The table of methods: one entry each. What a method is made of: blocks to compile, a drafter, an acceptance rule.

To add one: an entry here, and a file in runtime/drafters/ if its tokens come from somewhere new.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Any

from specc.runtime.block import Block, Frontier, Layers, Parents
from specc.runtime.errors import RecipeError
from specc.runtime.tree import Tree

PREFILL_SLOTS = 64
WIDTHS = (4, 6)  # of chains, below a recipe's own; 8 take as long as 12
CURVE = (2, 4, 6, 8, 12, 16, 24, 32, 48, 64)  # more of them, where the cost of a width is to be measured
DRAFT = ("ids", "top_k:8", "logits")
# How often the child of rank 0, 1, … is the target's token; the shape of default trees, not their cost.
RATES = (0.55, 0.14, 0.07, 0.045, 0.03, 0.025, 0.02, 0.015)


def prefill(model: str = "target") -> Block:
    return Block(Tree.chain(PREFILL_SLOTS), last_row=True, model=model, cache=model)


DECODE = Block(Tree.chain(1))


@dataclass(frozen=True)
class Facts:
    """What a plan may depend on."""

    layers: int
    vocab_size: int
    assistant: bool = False


@dataclass(frozen=True)
class Parameter:
    default: Any
    help: str


@dataclass(frozen=True)
class MethodBlocks:
    """The blocks of one recipe: those that verify, narrowest first, and the drafter's by argument name."""

    verify: tuple[Block, ...]
    engines: Mapping[str, Block] = field(default_factory=dict)
    arguments: Mapping[str, Any] = field(default_factory=dict)  # the drafter's other arguments


@dataclass(frozen=True)
class Method:
    """One published method. `search`, "module:function", fills parameters by a search on calibration text."""

    name: str
    title: str
    paper: str
    drafter: str
    topology: str
    plan: Callable[[Mapping[str, Any], Facts], MethodBlocks]
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    acceptance: str = "match"
    lossless: bool = True
    needs: tuple[str, ...] = ()
    search: str | None = None

    def settle(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Every parameter's value. Raises RecipeError for an unknown one, naming the nearest."""
        for name in given:
            if name not in self.parameters:
                raise RecipeError(f"recipe {self.name} has no parameter {name!r}; {_nearest(name, self.parameters)}")
        return {name: given.get(name, p.default) for name, p in self.parameters.items()}


def method(name: str) -> Method:
    """The table's entry. Raises RecipeError naming the nearest."""
    if name not in METHODS:
        raise RecipeError(f"no recipe {name!r}; {_nearest(name, METHODS)}")
    return METHODS[name]


def _nearest(name: str, known: Mapping[str, Any]) -> str:
    near = get_close_matches(name, known, 1)
    return f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known) or 'none'}"


def _count(p: Mapping[str, Any], name: str, least: int = 1) -> int:
    value = p[name]
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise RecipeError(f"{name} is {value!r}; give a whole number, {least} or more")
    return value


def _tree(literal: Any, default: Tree) -> Tree:
    return default if literal is None else Tree.from_paths(literal)


def _exit(p: Mapping[str, Any], facts: Facts) -> Layers:
    layer = p["assistant_early_exit"] if p["assistant_early_exit"] is not None else max(1, facts.layers // 4)
    if not isinstance(layer, int) or not 1 <= layer < facts.layers:
        raise RecipeError(
            f"assistant_early_exit is {layer!r}; the model has {facts.layers} layers: give 1..{facts.layers - 1}"
        )
    return Layers(exit_after=layer)


def _plain(p: Mapping[str, Any], facts: Facts) -> MethodBlocks:
    return MethodBlocks((DECODE,))


def _chain(p: Mapping[str, Any], draft: Mapping[str, Block]) -> MethodBlocks:
    count = _count(p, "num_speculative_tokens")
    arguments = {k: p[k] for k in ("num_speculative_tokens", "assistant_confidence_threshold")}
    return MethodBlocks(_widths(count + 1), draft, arguments)


def _widths(most: int) -> tuple[Block, ...]:
    """Engines for chains of up to `most` tokens; each step runs the narrowest that holds its draft."""
    return (DECODE, *(Block(Tree.chain(n)) for n in WIDTHS if n < most), Block(Tree.chain(most)))


def _layer_skip(p: Mapping[str, Any], facts: Facts) -> MethodBlocks:
    skipped = [tuple(p["skip_layers"] or ()) + tuple(p[k] or ()) for k in ("skip_attention", "skip_mlp")]
    for layer in (*skipped[0], *skipped[1]):
        if layer not in range(facts.layers):
            raise RecipeError(f"skip_layers names layer {layer!r}; the model has 0..{facts.layers - 1}")
    attention, mlp = (tuple(sorted(set(s))) for s in skipped)
    return _chain(p, {"draft": Block(Tree.chain(1), DRAFT, Layers(attention, mlp))})


def _quantized_self_draft(p: Mapping[str, Any], facts: Facts) -> MethodBlocks:
    plan = _layer_skip(p, facts)
    return replace(plan, engines={role: replace(b, weights="int4") for role, b in plan.engines.items()})


def _cascade(p: Mapping[str, Any], facts: Facts) -> MethodBlocks:
    most = 1 + _count(p, "num_speculative_tokens") + _count(p, "prompt_lookup_num_tokens")
    arguments = {k: v for k, v in p.items() if not k.startswith("skip_")}
    return MethodBlocks(_widths(most), _quantized_self_draft(p, facts).engines, arguments)


def _staged(p: Mapping[str, Any], facts: Facts) -> MethodBlocks:
    copy = Block(Tree.chain(1), DRAFT, weights="int4")
    wide = replace(copy, topology=Tree.chain(1 + _count(p, "prompt_lookup_num_tokens")))
    return MethodBlocks(_widths(1 + _count(p, "num_speculative_tokens")), {"draft": copy, "wide": wide}, dict(p))


def _early_exit(p: Mapping[str, Any], facts: Facts) -> MethodBlocks:
    tree = _tree(p["tree"], Tree.best_first(RATES[:4], 12, depth=5))
    width = max(1, max(int((tree.depth == d).sum()) for d in range(tree.depth.max() + 1)))
    draft = Block(Frontier(min(width, 4), 4 + tree.slots), DRAFT, _exit(p, facts))
    return MethodBlocks((Block(tree),), {"draft": draft}, {"tree": tree.parents})


def _prompt_lookup(p: Mapping[str, Any], facts: Facts) -> MethodBlocks:
    return MethodBlocks(_widths(1 + _count(p, "prompt_lookup_num_tokens")), {}, dict(p))


def _draft_model(p: Mapping[str, Any], facts: Facts) -> MethodBlocks:
    draft = Block(Tree.chain(1), DRAFT, model="assistant", cache="assistant")
    return _chain(p, {"draft": draft, "prefill": prefill("assistant")})


def _token_recycling(p: Mapping[str, Any], facts: Facts) -> MethodBlocks:
    tree = _tree(p["tree"], Tree.best_first(RATES, 1 + _count(p, "num_speculative_tokens"), depth=6))
    if (widest := max(tree.rank)) > 7:
        raise RecipeError(f"tree has a child of rank {widest}; token-recycling keeps 8 successors: use ranks 0..7")
    block = Block(tree, ("ids", "top_k:8", "logits"))
    return MethodBlocks((block,), {}, {"tree": tree.parents, "vocab_size": facts.vocab_size})


def _jacobi(p: Mapping[str, Any], facts: Facts) -> MethodBlocks:
    return MethodBlocks((Block(Tree.chain(1 + _count(p, "num_speculative_tokens"))),), {}, dict(p))


def _lookahead(p: Mapping[str, Any], facts: Facts) -> MethodBlocks:
    width, guesses = _count(p, "window_size"), _count(p, "max_candidates", 0)
    tree = Tree.window(width, _count(p, "ngram_size", 2) - 1, guesses)
    return MethodBlocks((Block(tree),), {}, dict(p))


def _dynamic_tree(p: Mapping[str, Any], facts: Facts) -> MethodBlocks:
    count = _count(p, "num_speculative_tokens")
    topology = Frontier(4, 4 + count + 1)
    arguments = {k: p[k] for k in ("num_speculative_tokens", "max_depth")}
    verify = (Block(Parents(count + 1)),)
    if facts.assistant:
        draft = Block(topology, DRAFT, model="assistant", cache="assistant")
        return MethodBlocks(verify, {"draft": draft, "prefill": prefill("assistant")}, arguments)
    return MethodBlocks(verify, {"draft": Block(topology, DRAFT, _exit(p, facts))}, arguments)


TOKENS = Parameter(3, "tokens a draft")
CONFIDENCE = Parameter(0.0, "drafting stops after a token to which the draft gave less probability")
EXIT = Parameter(None, "layers that the draft runs (default: a quarter of the model's)")
TREE = Parameter(None, 'tree literal, a list of paths such as "[(0,), (1,), (0, 0)]" (default: best-first)')

METHODS: dict[str, Method] = {
    m.name: m
    for m in (
        Method("plain", "Plain decoding", "", "plain", "none", _plain),
        Method(
            "quantized-self-draft", "Self-speculation by the model's own 4-bit copy",
            "QuantSpec, Tiwari et al. 2025, arXiv:2502.10424: the half of it that is weights",
            "layer-skip", "chain", _quantized_self_draft,
            {
                "num_speculative_tokens": Parameter(11, "tokens a draft at most"),
                "skip_layers": Parameter((), "layers to skip whole"),
                "skip_attention": Parameter((), "layers whose attention to skip"),
                "skip_mlp": Parameter((), "layers whose MLP to skip"),
                "assistant_confidence_threshold": replace(CONFIDENCE, default=0.3),
            },
        ),
        Method(
            "layer-skip", "Self-speculation by skipping layers",
            "Draft & Verify, Zhang et al. 2024, arXiv:2309.08168; SWIFT, Xia et al. 2025, arXiv:2410.06916",
            "layer-skip", "chain", _layer_skip,
            {
                "num_speculative_tokens": TOKENS,
                "skip_layers": Parameter(None, "layers to skip whole (default: a search on calibration text)"),
                "skip_attention": Parameter(None, "layers whose attention to skip"),
                "skip_mlp": Parameter(None, "layers whose MLP to skip"),
                "assistant_confidence_threshold": CONFIDENCE,
            },
            search="specc.compiler.layer_search:skip_sublayers",
        ),
        Method(
            "early-exit", "Self-speculation by early exit, on a static tree",
            "LayerSkip, Elhoushi et al. 2024, arXiv:2404.16710; Medusa's trees, Cai et al. 2024, arXiv:2401.10774",
            "early-exit", "static tree", _early_exit, {"assistant_early_exit": EXIT, "tree": TREE},
        ),
        Method(
            "prompt-lookup", "Prompt lookup decoding", "Saxena 2023, github.com/apoorvumang/prompt-lookup-decoding",
            "prompt-lookup", "chain", _prompt_lookup,
            {
                "prompt_lookup_num_tokens": Parameter(11, "tokens copied at most"),
                "max_matching_ngram_size": Parameter(3, "tokens that must match at most"),
            },
        ),
        Method(
            "recycled-lookup", "Prompt lookup that goes on with the model's recycled answers",
            "Saxena 2023; Token Recycling, Luo et al. 2024, arXiv:2408.08696", "recycled-lookup", "chain",
            _prompt_lookup,
            {
                "prompt_lookup_num_tokens": Parameter(11, "tokens copied or recycled at most"),
                "max_matching_ngram_size": Parameter(3, "tokens that must match at most, and to be recycled"),
            },
        ),
        Method(
            "cascade", "Prompt lookup, and the model's own 4-bit copy where it knows nothing",
            "Cascade Speculative Drafting, Chen et al. 2024, arXiv:2312.11462", "cascade", "chain", _cascade,
            {
                "num_speculative_tokens": Parameter(3, "tokens that the copy drafts at most"),
                "prompt_lookup_num_tokens": Parameter(8, "tokens copied at most"),
                "max_matching_ngram_size": Parameter(3, "tokens that must match for that"),
                "min_matching_ngram_size": Parameter(2, "tokens that must match to copy any"),
                "assistant_confidence_threshold": CONFIDENCE,
                "skip_layers": Parameter(None, "layers that the copy skips whole (default: a search)"),
                "skip_attention": Parameter(None, "layers whose attention the copy skips"),
                "skip_mlp": Parameter(None, "layers whose MLP the copy skips"),
            },
            search="specc.compiler.layer_search:skip_if_better",
        ),
        Method(
            "staged", "Self-speculation by the 4-bit copy, itself sped up by prompt lookup",
            "Staged Speculative Decoding, Spector & Re 2023, arXiv:2308.04623", "staged", "chain", _staged,
            {
                "num_speculative_tokens": Parameter(11, "tokens a draft"),
                "prompt_lookup_num_tokens": Parameter(3, "tokens that the copy checks in a call"),
                "max_matching_ngram_size": Parameter(3, "tokens that must match for that"),
                "min_matching_ngram_size": Parameter(2, "tokens that must match to guess any"),
            },
        ),
        Method(
            "draft-model", "Speculative decoding with a draft model", "Leviathan et al. 2023, arXiv:2211.17192",
            "draft-model", "chain", _draft_model,
            {"num_speculative_tokens": TOKENS, "assistant_confidence_threshold": CONFIDENCE},
            needs=("assistant-model",),
        ),
        Method(
            "token-recycling", "Token Recycling", "Luo et al. 2024, arXiv:2408.08696",
            "token-recycling", "static tree", _token_recycling,
            {"num_speculative_tokens": Parameter(23, "tree nodes; 80 in the paper"), "tree": TREE},
        ),
        Method(
            "jacobi", "Jacobi decoding", "Santilli et al. 2023, arXiv:2305.10427", "jacobi", "chain", _jacobi,
            {"num_speculative_tokens": Parameter(5, "tokens guessed a step")},
        ),
        Method(
            "lookahead", "Lookahead decoding", "Fu et al. 2024, arXiv:2402.02057", "lookahead", "window", _lookahead,
            {
                "window_size": Parameter(4, "columns of the window, W"),
                "ngram_size": Parameter(4, "tokens of an n-gram, N"),
                "max_candidates": Parameter(3, "n-grams verified a step, G"),
            },
        ),
        Method(
            "dynamic-tree", "DySpec's best-first tree over early exit or a draft model",
            "DySpec, Xiong et al. 2024, arXiv:2410.11744", "dynamic-tree", "dynamic tree", _dynamic_tree,
            {
                "num_speculative_tokens": Parameter(11, "tree nodes at most"),
                "max_depth": Parameter(5, "layers of the tree at most"),
                "assistant_early_exit": EXIT,
            },
        ),
    )
}  # fmt: skip
