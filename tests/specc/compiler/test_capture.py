"""A captured model computes what the original does, for every family; what cannot be captured is refused.

Logits have a scale near 1 and may differ by 1e-4. Those of the families here differ by 1e-5 at most.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from families import FAMILIES, MIXED, UNREACHED, WINDOW, tiny
from graphs import captured, logits, prepared, truth
from torch import nn
from transformers import PreTrainedModel

from specc import passes
from specc.compiler.capture import capture
from specc.passes.find import ATTENTION, calls, layers, weight
from specc.runtime.errors import CaptureError

pytestmark = pytest.mark.torch

EXACT: dict[str, Any] = {"atol": 1e-4, "rtol": 1e-4}
EVERY, SOME = [WINDOW] * 3, [WINDOW if kind == "sliding_attention" else 0 for kind in MIXED]
WINDOWS = {f: SOME if "layer_types" in own else EVERY for f, own in FAMILIES.items() if "sliding_window" in own}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_captured_graph_is_the_model(family: str) -> None:
    torch.testing.assert_close(logits(captured(family)), truth(family), **EXACT)
    torch.testing.assert_close(logits(prepared(family)), truth(family), **EXACT)


@pytest.mark.parametrize("family", FAMILIES)
def test_attention_is_one_operator_a_layer_and_carries_the_window(family: str) -> None:
    graph = captured(family)
    attention = calls(graph, ATTENTION)
    assert sorted(layers(graph)) == [n.args[-1] for n in attention] == [0, 1, 2]
    assert [n.args[5] for n in attention] == WINDOWS.get(family, [0, 0, 0])


@pytest.mark.parametrize("family", FAMILIES)
def test_another_attention_would_show(family: str) -> None:
    """A control of the tests that compare logits: another scale or window of a layer differs a hundredfold more."""
    changes: dict[int, Callable[[Any], Any]] = {
        4: lambda scale: 1.1 * scale,
        5: lambda window: window - 1 if window else 11,
    }
    for argument, change in changes.items():
        graph = prepared(family)
        node = calls(graph, ATTENTION)[1]
        node.update_arg(argument, change(node.args[argument]))
        graph.recompile()
        assert float((logits(graph) - truth(family)).abs().max()) > 1e-2


def test_sinks_and_soft_caps_are_carried() -> None:
    assert all(n.args[6] == 1.5 for n in calls(captured("gemma2"), ATTENTION))
    assert all(n.args[3] is not None for n in calls(captured("gpt_oss"), ATTENTION))


@pytest.mark.parametrize("family", ["llama", "qwen3_moe", "phi3-longrope"])
def test_the_model_stays_as_it_was_and_lends_its_weights(family: str) -> None:
    fresh = tiny(family)

    def settings(m: PreTrainedModel) -> Any:
        kinds = [x.rope_type for x in m.modules() if hasattr(x, "rope_type")]
        return m.config._attn_implementation, m.get_experts_implementation(), kinds

    before = settings(fresh)
    graph = capture(fresh)
    assert settings(fresh) == before
    own = {p.data_ptr() for p in fresh.parameters()}
    assert own.issuperset(weight(graph, n).data_ptr() for n in calls_of_weights(graph))


def calls_of_weights(graph: torch.fx.GraphModule) -> list[torch.fx.Node]:
    nodes = graph.graph.find_nodes(op="get_attr")
    return [n for n in nodes if str(n.target).startswith("model.") and isinstance(weight(graph, n), torch.nn.Parameter)]


def refusal(model: PreTrainedModel) -> str:
    with pytest.raises(CaptureError) as error:
        capture(model)
    assert "\n" not in str(error.value) and type(model).__name__ in str(error.value)
    assert model.config._attn_implementation == "eager"
    return str(error.value)


class OwnAttention(nn.Module):
    """Attention that calls torch itself, and no interface of transformers."""

    def __init__(self, replaced: Any) -> None:
        super().__init__()
        self.v_proj, self.o_proj = replaced.v_proj, replaced.o_proj

    def forward(self, hidden_states: torch.Tensor, **_: Any) -> tuple[torch.Tensor, None]:
        value = self.v_proj(hidden_states)
        out = nn.functional.scaled_dot_product_attention(value, value, value, is_causal=True)
        return self.o_proj(torch.cat([out, out], -1)), None


def test_attention_outside_the_interface_is_refused() -> None:
    model = tiny("llama")
    for layer in model.model.layers:
        layer.self_attn = OwnAttention(layer.self_attn)
    assert "no attention that transformers' AttentionInterface reaches" in refusal(model)


@pytest.mark.parametrize("family", UNREACHED)
def test_a_family_is_the_original_as_soon_as_it_is_not_refused(family: str) -> None:
    """Whether transformers sends its attention through the interface is up to transformers."""
    try:
        graph = capture(tiny(family))
    except CaptureError:
        assert "cannot be compiled" in refusal(tiny(family))
    else:
        torch.testing.assert_close(logits(graph), truth(family), **EXACT)
        passes.run(passes.preparation(64), graph)
        torch.testing.assert_close(logits(graph), truth(family), **EXACT)


class Recurrence(nn.Module):
    """A linear recurrence in the place of an MLP: each slot's state is half the state before, and its input."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        slots = torch.arange(hidden_states.shape[1])
        age = slots[:, None] - slots
        return torch.where(age < 0, 0.0, 0.5**age) @ hidden_states


def test_a_recurrence_is_refused() -> None:
    model = tiny("llama")
    model.model.layers[1].mlp = Recurrence()
    assert "carries more from token to token than keys and values" in refusal(model)


def test_what_torch_cannot_export_is_refused_with_its_reason() -> None:
    class Branches(nn.Module):
        def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
            return hidden_states if float(hidden_states.sum()) > 0 else -hidden_states

    model = tiny("llama")
    model.model.layers[1].mlp = Branches()
    assert "torch.export cannot capture it: " in refusal(model)


def test_a_convolution_over_tokens_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """It can be exported, but its state would be in no cache."""
    kinds = {"layer_types": ["conv", "full_attention", "conv"]}
    monkeypatch.setitem(FAMILIES, "lfm2", kinds)
    assert "carries more from token to token than keys and values" in refusal(tiny("lfm2"))
    monkeypatch.setitem(FAMILIES, "lfm2", {"layer_types": ["full_attention"] * 3})
    assert calls(capture(tiny("lfm2")), ATTENTION)


def test_other_masks_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FAMILIES, "bert", {"pad_token_id": 0})
    assert "layer 0 hands a mask that is neither causal nor a sliding window to attention" in refusal(tiny("bert"))
    bidirectional = tiny("llama")
    bidirectional.config.is_causal = False
    assert "layer 0 hands a mask that is neither causal nor a sliding window" in refusal(bidirectional)


def test_an_unknown_term_of_attention_is_refused() -> None:
    model = tiny("llama")

    def add_term(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return args, kwargs | {"position_bias": torch.zeros(1)}

    model.model.layers[0].self_attn.register_forward_pre_hook(add_term, with_kwargs=True)
    assert "layer 0 hands 'position_bias' to attention" in refusal(model)
