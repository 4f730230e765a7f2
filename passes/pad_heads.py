"""Give attention heads of one size, which its kernels need."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.fx import GraphModule, Node

from .arguments import node_arg
from .find import ATTENTION, aten, calls
from .protocol import Pass


@dataclass(frozen=True)
class PadHeads(Pass):
    """A pass that pads queries, keys and values to one size, a multiple of `multiple`.

    The padding is zeros, which change no score and add nothing to the output.

    Given:   out = specc.attention(q, k, v, …)
    Result:  out = specc.attention(pad(q), pad(k), pad(v), …)[..., :size of v]
    """

    multiple: int
    optional: ClassVar[bool] = True

    def __call__(self, graph: GraphModule) -> int:
        changed = 0
        for node in calls(graph, ATTENTION):
            heads = [node_arg(node, i) for i in range(3)]
            sizes = [head.meta["val"].shape[-1] for head in heads]
            size = -(-max(sizes) // self.multiple) * self.multiple
            if sizes == [size] * 3:
                continue
            before = dict(node.meta)
            node.args = (*(_padded(graph, node, head, size) for head in heads), *node.args[3:])
            node.meta["val"] = _resized(heads[0], size)
            with graph.graph.inserting_after(node):
                cut = graph.graph.call_function(aten.slice.Tensor, (node, 3, 0, sizes[2]))
            cut.meta = before
            node.replace_all_uses_with(cut, delete_user_cb=lambda user, cut=cut: user is not cut)  # type: ignore[misc]
            changed += 1
        return changed


def _padded(graph: GraphModule, before: Node, head: Node, size: int) -> Node:
    """Return `head` with zeros behind each head's values, up to `size`; inserted before the node `before`."""
    missing = size - head.meta["val"].shape[-1]
    if not missing:
        return head
    with graph.graph.inserting_before(before):
        padded = graph.graph.call_function(aten.constant_pad_nd.default, (head, [0, missing]))
    padded.meta = dict(head.meta) | {"val": _resized(head, size)}
    return padded


def _resized(head: Node, size: int) -> Tensor:
    """Return a tensor that stands for heads of another size."""
    value: Tensor = head.meta["val"]
    return value.new_empty((*value.shape[:-1], size))
