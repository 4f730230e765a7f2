"""A captured model is the original, for every family; what cannot be captured, or not be decoded from a cache, is told.

Logits are of a scale near 1 and may differ by 1e-4; what is found is 1e-5 at most.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from families import FAMILIES, MIXED, UNREACHED, WINDOW, tiny
from graphs import captured, logits, model, prepared, truth
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PreTrainedModel

from specc import passes
from specc.compiler.capture import capture
from specc.huggingface import describe, load_model
from specc.passes.find import ATTENTION, calls, layers, weight
from specc.runtime.errors import CaptureError

pytestmark = pytest.mark.torch

EXACT = {"atol": 1e-4, "rtol": 1e-4}
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
    """The control of the tests above: another scale or window of one layer changes the logits a hundredfold more."""
    for argument, change in ((4, lambda scale: 1.1 * scale), (5, lambda window: window - 1 if window else 11)):
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
    mine = {p.data_ptr() for p in fresh.parameters()}
    assert mine.issuperset(weight(graph, n).data_ptr() for n in calls_of_weights(graph))


def calls_of_weights(graph: torch.fx.GraphModule) -> list[torch.fx.Node]:
    nodes = graph.graph.find_nodes(op="get_attr")
    return [n for n in nodes if str(n.target).startswith("model.") and isinstance(weight(graph, n), torch.nn.Parameter)]


def refusal(model: PreTrainedModel) -> str:
    with pytest.raises(CaptureError) as caught:
        capture(model)
    assert "\n" not in str(caught.value) and type(model).__name__ in str(caught.value)
    assert model.config._attn_implementation == "eager"
    return str(caught.value)


class OwnAttention(nn.Module):
    """Attention that calls torch itself, and no interface of transformers."""

    def __init__(self, replaced: nn.Module) -> None:
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


# loading: what stands in a directory, and what is said of it


def save(directory: Path, **changes: Any) -> Path:
    """A model, with changes to its configuration."""
    model("llama").save_pretrained(directory)
    rewrite(directory / "config.json", **changes)
    return directory


def rewrite(file: Path, **changes: Any) -> None:
    file.parent.mkdir(exist_ok=True, parents=True)
    file.write_text(json.dumps((json.loads(file.read_text()) if file.exists() else {}) | changes))


def reweigh(directory: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    file = directory / "model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})


def complaint(source: Path | str) -> str:
    with pytest.raises(CaptureError) as caught:
        load_model(str(source))
    assert "\n" not in str(caught.value) and str(source) in str(caught.value)
    return str(caught.value)


def test_a_saved_model_loads_in_fp32(tmp_path: Path) -> None:
    model("llama").to(torch.float32).save_pretrained(tmp_path)
    loaded = load_model(str(tmp_path))
    assert loaded.dtype == torch.float32 and not loaded.training
    torch.testing.assert_close(loaded.lm_head.weight, model("llama").lm_head.weight)


def test_no_directory_no_configuration_none_that_can_be_read(tmp_path: Path) -> None:
    assert "name one that save_pretrained wrote, or a hub id" in complaint(tmp_path / "absent")
    assert "has no config.json; name a directory that save_pretrained wrote" in complaint(tmp_path)
    (tmp_path / "config.json").write_text("{")
    assert "cannot read the configuration" in complaint(tmp_path)


def test_an_encoder_decoder(tmp_path: Path) -> None:
    rewrite(tmp_path / "config.json", model_type="t5")
    assert "is an encoder-decoder (t5); specc compiles decoder-only models" in complaint(tmp_path)


def test_a_model_type_that_is_unknown_or_no_language_model(tmp_path: Path) -> None:
    rewrite(tmp_path / "config.json", model_type="nosuch")
    assert "`nosuch`" in complaint(tmp_path)
    rewrite(tmp_path / "config.json", model_type="vit")
    said = complaint(tmp_path)
    assert f"'vit', which is no causal language model of transformers {transformers.__version__}; upgrade" in said


def test_weights_as_pickles_are_never_read(tmp_path: Path) -> None:
    model("llama").config.save_pretrained(tmp_path)
    torch.save(model("llama").state_dict(), tmp_path / "pytorch_model.bin")
    said = complaint(tmp_path)
    assert "from safetensors" in said and said.endswith("save the model again with save_pretrained")


def test_quantised_weights(tmp_path: Path) -> None:
    said = complaint(save(tmp_path, quantization_config={"quant_method": "awq", "bits": 4}))
    assert "is quantised; compile the original checkpoint" in said


def test_weights_that_would_be_random(tmp_path: Path) -> None:
    for change in (lambda t: t.pop("model.norm.weight"), lambda t: t.update({"model.norm.weight": torch.ones(3)})):
        reweigh(save(tmp_path), change)
        assert "lacks 1 of its weights, such as model.norm.weight" in complaint(tmp_path)


def test_a_truncated_file_of_weights(tmp_path: Path) -> None:
    file = save(tmp_path) / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    assert "cannot load" in complaint(tmp_path)


def test_remote_code_is_run_with_the_flag_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = {"AutoConfig": "mine.C", "AutoModelForCausalLM": "mine.M"}
    directory, ran = save(tmp_path / "m", model_type="mine", auto_map=code), tmp_path / "ran"
    (directory / "mine.py").write_text(
        f"open({str(ran)!r}, 'w')\n"
        "from transformers import LlamaConfig, LlamaForCausalLM\n"
        "class C(LlamaConfig):\n    model_type = 'mine'\n"
        "class M(LlamaForCausalLM):\n    config_class = C\n"
    )
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    assert "--trust-remote-code runs its code, if you have read it" in complaint(directory)
    rewrite(directory / "config.json", model_type="llama")
    assert type(load_model(str(directory))).__module__ == "transformers.models.llama.modeling_llama"
    assert not ran.exists()
    assert type(load_model(str(directory), trust_remote_code=True)).__name__ == "M"
    assert ran.exists()


def test_the_context_is_the_models_or_less() -> None:
    assert describe(model("llama"), "here").context == 128
    assert describe(model("llama"), "here", 64).context == 64
    with pytest.raises(CaptureError, match=r"max_seq_len 129 does not fit here; give 16\.\.128"):
        describe(model("llama"), "here", 129)


def test_the_context_ends_where_rotary_frequencies_change() -> None:
    """Rows that the cache holds were turned by the frequencies before."""
    assert describe(model("phi3-longrope"), "here").context == 64
