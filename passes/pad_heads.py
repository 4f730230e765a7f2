"""Heads of one size, which attention kernels want."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch.fx import GraphModule, Node

from .find import ATTENTION, aten, calls


@dataclass(frozen=True)
class PadHeads:
    """Queries, keys and values of one size, a multiple of `multiple`. Zeros change no score and add to no output.

    Given:   out = specc.attention(q, k, v, …)
    Result:  out = specc.attention(pad(q), pad(k), pad(v), …)[..., :size of v]
    """

    multiple: int
    optional: ClassVar[bool] = True

    def __call__(self, graph: GraphModule) -> int:
        changed = 0
        for node in calls(graph, ATTENTION):
            heads: list[Node] = list(node.args[:3])
            sizes = [h.meta["val"].shape[-1] for h in heads]
            size = -(-max(sizes) // self.multiple) * self.multiple
            if sizes == [size] * 3:
                continue
            before = dict(node.meta)
            node.args = (*(_padded(graph, node, h, size) for h in heads), *node.args[3:])
            node.meta["val"] = _wider(heads[0], size)
            with graph.graph.inserting_after(node):
                cut = graph.graph.call_function(aten.slice.Tensor, (node, 3, 0, sizes[2]))
            cut.meta = before
            node.replace_all_uses_with(cut, delete_user_cb=lambda user, cut=cut: user is not cut)
            changed += 1
        return changed


def _padded(graph: GraphModule, before: Node, head: Node, size: int) -> Node:
    missing = size - head.meta["val"].shape[-1]
    if not missing:
        return head
    with graph.graph.inserting_before(before):
        padded = graph.graph.call_function(aten.constant_pad_nd.default, (head, [0, missing]))
    padded.meta = dict(head.meta) | {"val": _wider(head, size)}
    return padded


def _wider(head: Node, size: int) -> object:
    value = head.meta["val"]
    return value.new_empty((*value.shape[:-1], size))
