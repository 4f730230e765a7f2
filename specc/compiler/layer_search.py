"""Which sublayers a draft can do without: a search on calibration text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch.fx import GraphModule, Interpreter, Node
from torch.nn.functional import cosine_similarity

from specc import passes
from specc.passes.find import layers
from specc.passes.residual import residual_sums
from specc.passes.skip_sublayers import SkipSublayers

Advance = Callable[[int, int], None]
Sublayer = tuple[str, int]  # ("attention" or "mlp", layer)

KINDS = ("attention", "mlp")
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)  # of all sublayers
# In steps of the target, on the machine of specc/recipes/defaults.py; benchmarks/bench_steps.py measures them anew.
DRAFT_COST = 0.4  # a draft step on all layers, which reads a quarter of the bytes
VERIFY_COST = 1.4  # a step that verifies a chain
COPY_RATE = 0.95  # share of tokens in which a 4-bit copy agrees with the target; benchmarks/heldout.py


def skip_some(
    graph: GraphModule, tokens: Sequence[int], values: Mapping[str, Any], advance: Advance = lambda done, count: None
) -> dict[str, Any]:
    """Choose the sublayers that a draft skips, one at least.

    Sublayers are ranked by how little they turn the residual stream. The first of the ranking are skipped, as many as
    make chain drafting fastest. The first and the last layer stay if there are others, as in SWIFT (Xia et al. 2025,
    arXiv:2410.06916).

    Args:
        graph: the target's prepared graph.
        tokens: calibration text.
        values: the recipe's parameters.
        advance: called with the candidates that were run, and with their number.

    Returns:
        Values for the parameters skip_attention and skip_mlp.
    """
    return _search(graph, tokens, values, SHARES, advance)


def skip_if_faster(
    graph: GraphModule, tokens: Sequence[int], values: Mapping[str, Any], advance: Advance = lambda done, count: None
) -> dict[str, Any]:
    """Choose the sublayers that a draft skips like `skip_some`, or none if that is faster."""
    return _search(graph, tokens, values, (0.0, *SHARES), advance)


def skip_sets(
    graph: GraphModule, tokens: Sequence[int], values: Mapping[str, Any], advance: Advance = lambda done, count: None
) -> dict[str, Any]:
    """Choose several sets of as many sublayers, among which a drafter searches while it decodes.

    The first is that of `skip_some`. Each other one has the sublayers that matter least in another part of the text.
    If two parts agree, the start of SWIFT (Xia et al. 2025, arXiv:2410.06916), every second layer, takes the place of
    one.

    Returns:
        A value for the parameter skip_sets.
    """
    first = skip_some(graph, tokens, values, advance)
    size, count = sum(map(len, first.values())), values["candidates"]
    length = max(1, len(tokens) // max(1, count - 1))
    parts = [tokens[start : start + length] for start in range(0, len(tokens), length)][: count - 1]
    ranks = [_ranking(graph, tuple(part))[:size] for part in parts]
    every_second = sorted(_ranking(graph, tuple(tokens)), key=lambda sublayer: sublayer[1] % 2 == 0)
    sets = [_values(sublayers) for sublayers in (*ranks, every_second[:size])]
    distinct = [s for number, s in enumerate([first, *sets]) if s not in [first, *sets][:number]]
    return {"skip_sets": [[s["skip_attention"], s["skip_mlp"]] for s in distinct[:count]]}


def _search(
    graph: GraphModule, tokens: Sequence[int], values: Mapping[str, Any], shares: Sequence[float], advance: Advance
) -> dict[str, Any]:
    ranked, rates = _ranked(graph, tuple(tokens), advance)
    count: int = values["num_speculative_tokens"]

    def speed(share: float) -> float:
        """Return E[tokens a step] / E[cost of a step], Leviathan et al. 2023, arXiv:2211.17192."""
        rate = COPY_RATE * rates[share]
        expected = sum(rate**i for i in range(count + 1))
        return expected / (count * DRAFT_COST * (1 - share) + VERIFY_COST)

    share = max(shares, key=speed)
    return _values(_first(ranked, share, graph) if share else [])


def _values(skipped: Sequence[Sublayer]) -> dict[str, Any]:
    """Return sublayers as values of the parameters skip_attention and skip_mlp."""
    return {f"skip_{kind}": sorted(layer for k, layer in skipped if k == kind) for kind in KINDS}


def _first(ranked: Sequence[Sublayer], share: float, graph: GraphModule) -> Sequence[Sublayer]:
    """Return the first of the ranking, one at least: that share of all sublayers, of which a layer has two."""
    return ranked[: max(1, int(share * 2 * len(layers(graph))))]


@cache
@torch.no_grad()
def _ranked(graph: GraphModule, tokens: tuple[int, ...], advance: Advance) -> tuple[list[Sublayer], dict[float, float]]:
    """Rank the sublayers.

    Returns:
        The sublayers, the one with the least influence first, and for each share how often the model without that share
        of them chooses the token that the whole model chooses.
    """
    inputs = _inputs(tokens)
    ranked = _ranking(graph, tokens)
    target = graph(*inputs)["logits"][0].argmax(-1)
    rates = {0.0: 1.0}
    for done, share in enumerate(SHARES):
        advance(done, len(SHARES))
        twin, skipped = passes.fork(graph), _first(ranked, share, graph)
        attention, mlp = (tuple(layer for k, layer in skipped if k == kind) for kind in KINDS)
        passes.run([SkipSublayers(attention, mlp)], twin)
        rates[share] = float((twin(*inputs)["logits"][0].argmax(-1) == target).float().mean())
    return ranked, rates


@cache
@torch.no_grad()
def _ranking(graph: GraphModule, tokens: tuple[int, ...]) -> list[Sublayer]:
    """Return the sublayers, the one with the least influence on these tokens first."""
    every = sorted(layers(graph))
    influence = _Influence(graph, every[1:-1] or every)
    influence.run(*_inputs(tokens))
    return sorted(influence.of, key=influence.of.__getitem__)


def _inputs(tokens: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the inputs of a graph: tokens and their positions, each [1, number of tokens]."""
    return torch.tensor([list(tokens)]), torch.arange(len(tokens))[None]


class _Influence(Interpreter):
    """An interpreter that notes how far each sublayer turns the residual stream.

    The measure is 1 less the cosine between the stream with and without the sublayer's output: that of ShortGPT (Men et
    al. 2024, arXiv:2403.03853), taken of sublayers.
    """

    def __init__(self, graph: GraphModule, inner: Sequence[int]) -> None:
        super().__init__(graph)
        self.of: dict[Sublayer, float] = {}
        self.sums: dict[Node, tuple[Sublayer, Node]] = {}
        for layer in inner:
            sums = residual_sums(graph, layers(graph)[layer])
            for kind in KINDS:
                add, branch = sums[kind]
                self.sums[add] = (kind, layer), branch

    def run_node(self, n: Node) -> Any:
        value = super().run_node(n)
        if n in self.sums:
            sublayer, branch = self.sums[n]
            without = value - self.env[branch]
            self.of[sublayer] = 1 - float(cosine_similarity(without, value, dim=-1).mean())
        return value
