"""Which sublayers a draft can do without: a search on calibration text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch.fx import GraphModule, Interpreter, Node
from torch.nn.functional import cosine_similarity

from specc import passes
from specc.passes.find import addends, layers
from specc.passes.skip_sublayers import SkipSublayers

Sublayer = tuple[str, int]  # ("attention" or "mlp", layer)


SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)  # of all sublayers
# What a step of a draft on all layers costs beside a step of the target: it reads a quarter of the bytes.
DRAFT_COST, VERIFY_COST = 0.4, 1.4
COPY_RATE = 0.95  # how often a 4-bit copy agrees with the target


def skip_sublayers(graph: GraphModule, tokens: Sequence[int], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Values for skip_attention and skip_mlp, unless the user named layers. Something is skipped.

    Sublayers are ranked by how little they turn the residual stream; the first so many of the ranking are left out,
    by the speed that chain drafting would have without them. The first and the last layer stay, as in SWIFT (Xia et
    al. 2025, arXiv:2410.06916), where there are others.
    """
    return _search(graph, tokens, parameters, SHARES)


def skip_if_better(graph: GraphModule, tokens: Sequence[int], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The same, where a draft that skips nothing is a choice too."""
    return _search(graph, tokens, parameters, (0.0, *SHARES))


def _search(
    graph: GraphModule, tokens: Sequence[int], parameters: Mapping[str, Any], shares: Sequence[float]
) -> dict[str, Any]:
    if any(parameters[k] is not None for k in ("skip_layers", "skip_attention", "skip_mlp")):
        return {}
    ranked, rates = _ranked(graph, tuple(tokens))
    count, total = parameters["num_speculative_tokens"], 2 * len(layers(graph))

    def speed(share: float) -> float:
        """E[tokens a step] / (steps' cost), Leviathan et al. 2023, arXiv:2211.17192."""
        rate = COPY_RATE * rates[share]
        return sum(rate**i for i in range(count + 1)) / (count * DRAFT_COST * (1 - share) + VERIFY_COST)

    share = max(shares, key=speed)
    skipped = ranked[: max(1, int(share * total))] if share else []
    return {f"skip_{kind}": sorted(i for k, i in skipped if k == kind) for kind in ("attention", "mlp")}


@cache
@torch.no_grad()
def _ranked(graph: GraphModule, tokens: tuple[int, ...]) -> tuple[list[Sublayer], dict[float, float]]:
    """Sublayers, the least missed first; how often the model without a share of them chooses the same token."""
    inputs = torch.tensor([list(tokens)]), torch.arange(len(tokens))[None]
    every = sorted(layers(graph))
    run = _Influence(graph, every[1:-1] or every)
    target = run.run(*inputs)["logits"][0].argmax(-1)
    ranked = sorted(run.found, key=run.found.__getitem__)
    rates = {0.0: 1.0}
    for share in SHARES:
        twin, skipped = passes.fork(graph), ranked[: max(1, int(share * 2 * len(layers(graph))))]
        chosen = [tuple(i for k, i in skipped if k == kind) for kind in ("attention", "mlp")]
        passes.run([SkipSublayers(*chosen)], twin)
        rates[share] = float((twin(*inputs)["logits"][0].argmax(-1) == target).float().mean())
    return ranked, rates


class _Influence(Interpreter):
    """Runs a graph and notes how far each sublayer turns the residual stream: 1 less the cosine (ShortGPT's measure,
    Men et al. 2024, arXiv:2403.03853, of sublayers)."""

    def __init__(self, graph: GraphModule, inner: Sequence[int]) -> None:
        super().__init__(graph)
        self.found: dict[Sublayer, float] = {}
        self.sums: dict[Node, tuple[Sublayer, Node]] = {}
        for layer in inner:
            sums = addends(graph, layers(graph)[layer])
            self.sums |= {
                add: ((kind, layer), sums[kind][1]) for kind in ("attention", "mlp") for add in [sums[kind][0]]
            }

    def run_node(self, node: Node) -> Any:
        value = super().run_node(node)
        if node in self.sums:
            sublayer, branch = self.sums[node]
            without = value - self.env[branch]
            self.found[sublayer] = 1 - float(cosine_similarity(without, value, dim=-1).mean())
        return value
