"""Graft: what a trained head reads, spliced into a model."""

from __future__ import annotations

import pytest
import torch
from expecttest import assert_expected_inline
from graphs import EIGHT, prepared, stack, tokens, truth
from small_graphs import Layers, hidden_states, rewrite, small
from torch import Tensor, nn
from torch.fx import GraphModule

from specc import passes
from specc.passes.find import outputs, path_to_head
from specc.passes.graft import Graft
from specc.runtime.errors import PassError

pytestmark = pytest.mark.torch


def fuse(size: int, seed: int = 0) -> GraphModule:
    """Return the graph of a product that makes 2 numbers of a state of so many."""
    torch.manual_seed(seed)
    return small(nn.Linear(size, 2, bias=False), "state", taps=torch.ones(1, 3, size))


def test_the_module_reads_the_states_after_layers_side_by_side() -> None:
    model, x, module = Layers(), hidden_states(), fuse(8)
    graph = small(model, x=x)
    assert_expected_inline(
        rewrite(graph, Graft("eagle", (0, -1), module)),
        """\
inputs x
attention_1 = specc.attention(x, x, x, None, 0.5, 0, 0.0, 0)
add_1 = add(x, attention_1)
linear_1 = linear(add_1, self.layers.0.mlp.weight)
add_2 = add(add_1, linear_1)
attention_2 = specc.attention(add_2, add_2, add_2, None, 0.5, 0, 0.0, 1)
add_3 = add(add_2, attention_2)
linear_2 = linear(add_3, self.layers.1.mlp.weight)
add_4 = add(add_3, linear_2)
linear_3 = linear(add_4, self.head.weight)
return {logits: linear_3}
--> Graft(name='eagle', taps=(0, -1)) changed 1
inputs x
attention_1 = specc.attention(x, x, x, None, 0.5, 0, 0.0, 0)
add_1 = add(x, attention_1)
linear_1 = linear(add_1, self.layers.0.mlp.weight)
add_2 = add(add_1, linear_1)
attention_2 = specc.attention(add_2, add_2, add_2, None, 0.5, 0, 0.0, 1)
add_3 = add(add_2, attention_2)
linear_2 = linear(add_3, self.layers.1.mlp.weight)
add_4 = add(add_3, linear_2)
linear_3 = linear(add_4, self.head.weight)
cat_1 = cat([add_2, add_4], -1)
linear_4 = linear(cat_1, self.eagle.model.weight)
return {logits: linear_3, state:eagle: linear_4}""",
    )
    first = model.layers[0](x)
    expected = module(torch.cat([first, model.layers[1](first)], -1))["state"]
    torch.testing.assert_close(graph(x)["state:eagle"], expected)
    torch.testing.assert_close(graph(x)["logits"], model(x))


def test_two_heads_have_weights_of_their_own() -> None:
    x = hidden_states()
    graph = small(Layers(), x=x)
    passes.run([Graft("a", (0,), fuse(4)), Graft("b", (0,), fuse(4, seed=1))], graph)
    values = graph(x)
    assert not torch.equal(values["state:a"], values["state:b"])


def test_a_later_pass_does_not_change_the_weights_of_the_heads_own_graph() -> None:
    """Engines are made from copies of one graph, so each copy has a copy of the module."""
    module = fuse(4)
    graph = small(Layers(), x=hidden_states())
    passes.run([Graft("a", (0,), module)], graph)
    graph.get_submodule("a.model").weight = nn.Parameter(torch.zeros(2, 4))
    assert dict(module.named_parameters())["model.weight"].any()


def test_a_layer_that_the_model_lacks_is_refused() -> None:
    with pytest.raises(PassError, match=r"no layer 3; the graph has \[0, 1\]"):
        passes.run([Graft("a", (3,), fuse(4))], small(Layers(), x=hidden_states()))


def test_the_number_of_layers_is_what_the_models_last_product_reads() -> None:
    graph = small(Layers(), x=hidden_states())
    passes.run([Graft("a", (2,), fuse(4))], graph)
    assert path_to_head(graph)[-1].all_input_nodes[0] in outputs(graph)["state:a"].all_input_nodes


@torch.no_grad()
@pytest.mark.parametrize("family", EIGHT)
def test_it_finds_the_layers_of_each_family_and_leaves_the_logits(family: str) -> None:
    graph = prepared(family)
    states: list[Tensor] = []
    _, layers = stack(family)

    def keep(module: nn.Module, args: object, output: Tensor | tuple[Tensor, ...]) -> None:
        states.append(output[0] if isinstance(output, tuple) else output)

    hooks = [layer.register_forward_hook(keep) for layer in layers]
    logits = truth(family)
    for hook in hooks:
        hook.remove()
    size = states[0].shape[-1]
    module = fuse(2 * size)
    passes.run([Graft("head", (0, -1), module)], graph)
    values = graph(tokens(), torch.arange(tokens().shape[1])[None])
    torch.testing.assert_close(values["logits"][0], logits, atol=1e-4, rtol=1e-4)
    expected = module(torch.cat([states[0], states[-1]], -1))["state"]
    torch.testing.assert_close(values["state:head"], expected, atol=1e-4, rtol=1e-4)
