"""Which sublayers a draft can do without: a search on calibration text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


@torch.no_grad()
def skip_sublayers(graph: GraphModule, tokens: Sequence[int], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Values for skip_attention and skip_mlp, unless the user named layers.

    Each sublayer is left out alone, and ranked by how much the model's own choices then surprise it; the best so many
    of the ranking are taken, by the speed that chain drafting would have with them. The first and the last layer
    stay, as in SWIFT (Xia et al. 2025, arXiv:2410.06916).
    """
    if any(parameters[k] is not None for k in ("skip_layers", "skip_attention", "skip_mlp")):
        return {}
    input_ids = torch.tensor([list(tokens)])
    position_ids = torch.arange(len(tokens))[None]

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
    count, total = parameters["num_speculative_tokens"], 2 * len(layers(graph))
    best, skipped = 0.0, ranked[:1]
    for share in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6):
        some = ranked[: max(1, int(share * total))]
        rate = float((logits(some).argmax(-1) == target).float().mean())
        # E[tokens a step] / (steps' cost), Leviathan et al. 2023, arXiv:2211.17192; verify costs one and a half
        speed = sum(rate**i for i in range(count + 1)) / (count * (1 - len(some) / total) + 1.5)
        if speed > best:
            best, skipped = speed, some
    return {f"skip_{kind}": sorted(i for k, i in skipped if k == kind) for kind in ("attention", "mlp")}
