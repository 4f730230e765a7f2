"""Which sublayers a draft can do without: a search on calibration text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.nn.functional import cross_entropy

from specc import passes
from specc.passes.find import layers
from specc.passes.skip_sublayers import SkipSublayers
from specc.runtime.errors import PassError

Sublayer = tuple[str, int]  # ("attention" or "mlp", layer)


SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)  # of all sublayers
# What a step of a draft on all layers costs beside a step of the target: it reads a quarter of the bytes.
DRAFT_COST, VERIFY_COST = 0.4, 1.4
COPY_RATE = 0.95  # how often a 4-bit copy agrees with the target


def skip_sublayers(graph: GraphModule, tokens: Sequence[int], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Values for skip_attention and skip_mlp, unless the user named layers. Something is skipped.

    Each sublayer is left out alone, and ranked by how much the model's own choices then surprise it; the best so many
    of the ranking are taken, by the speed that chain drafting would have with them. The first and the last layer
    stay, as in SWIFT (Xia et al. 2025, arXiv:2410.06916).
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
    input_ids, position_ids = torch.tensor([list(tokens)]), torch.arange(len(tokens))[None]

    def logits(skipped: Sequence[Sublayer]) -> Tensor:
        twin = passes.fork(graph)
        if skipped:
            chosen = [tuple(i for k, i in skipped if k == kind) for kind in ("attention", "mlp")]
            passes.run([SkipSublayers(*chosen)], twin)
        scores: Tensor = twin(input_ids, position_ids)["logits"][0]
        return scores

    target = logits(()).argmax(-1)
    inner = sorted(layers(graph))[1:-1]
    if not inner:
        raise PassError("layer-skip needs a model of three layers or more")

    def surprise(skipped: Sequence[Sublayer]) -> float:
        return float(cross_entropy(logits(skipped), target))

    ranked = sorted(((kind, i) for i in inner for kind in ("attention", "mlp")), key=lambda s: surprise([s]))
    total = 2 * len(layers(graph))
    rates = {0.0: 1.0}
    for share in SHARES:
        same = logits(ranked[: max(1, int(share * total))]).argmax(-1) == target
        rates[share] = float(same.float().mean())
    return ranked, rates
