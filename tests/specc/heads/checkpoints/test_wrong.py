"""A published head with one wrong field or tensor is refused in one line that names it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from published_heads import CONFIG, KNOWN, SIZE, VOCABULARY, layer, loaded, random, write

from specc.heads import Head
from specc.runtime.errors import HeadError

pytestmark = pytest.mark.torch
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def eagle3() -> dict[str, torch.Tensor]:
    weights = {"fc.weight": random(SIZE, 3 * SIZE, seed=1), "norm.weight": random(SIZE, seed=2)}
    weights |= {"lm_head.weight": random(KNOWN, SIZE, seed=3), "d2t": torch.full((KNOWN,), 5)}
    return weights | layer("midlayer.", wide=True)


def refusal(directory: Path, weights: dict[str, torch.Tensor], config: dict[str, Any]) -> str:
    with pytest.raises(HeadError) as raised:
        loaded(write(directory, weights, config))
    message = str(raised.value)
    assert "\n" not in message and len(message) < 600
    return message


def test_the_head_without_a_change_is_loaded(tmp_path: Path) -> None:
    for number, scaling in enumerate((None, LLAMA3, {"type": "linear", "factor": 2})):
        assert isinstance(loaded(write(tmp_path / str(number), eagle3(), CONFIG | {"rope_scaling": scaling})), Head)


FIELDS = [
    (name, value)
    for name, values in (
        ("num_attention_heads", (0, -4, 3, 10**9, [4], True)),
        ("num_key_value_heads", (-4, 0, 3, 10**9, [2], "2")),
        ("hidden_size", (-4, 0, 16, 10**9, 1.5)),
        ("vocab_size", (-1, 0, KNOWN - 1, 10**15)),
        ("rms_norm_eps", (None, [1], 0, -1, "x", float("nan"))),
        ("rope_theta", ([1], 0, -1, "x", float("inf"))),
        ("rope_scaling", ("x", [1], 5, {"type": "linear"}, {"type": ["linear"]}, {"type": "linear", "factor": "x"})),
        ("rope_scaling", ({"type": "linear", "factor": 0}, {"rope_type": "llama3"}, LLAMA3 | {"low_freq_factor": 4.0})),
        ("rope_scaling", tuple({k: v for k, v in LLAMA3.items() if k != name} for name in list(LLAMA3)[1:])),
        ("rope_parameters", ("x", [1], 5, {"rope_theta": [1]})),
        ("speculators_config", ("x", [1], 5, {"verifier": "x"})),
    )
    for value in values
]


@pytest.mark.parametrize(("name", "value"), FIELDS)
def test_a_wrong_field_is_refused(name: str, value: Any, tmp_path: Path) -> None:
    assert "config.json" in refusal(tmp_path, eagle3(), CONFIG | {name: value})


TENSORS = [
    ("d2t", torch.full((KNOWN,), VOCABULARY), "tokens outside 0..39"),
    ("d2t", torch.full((KNOWN,), -1), "tokens outside 0..39, such as -1"),
    ("d2t", -torch.arange(KNOWN), "the token 0 more than once"),
    ("d2t", torch.full((KNOWN - 1,), 5), "d2t of shape [23] for 24 tokens"),
    ("d2t", torch.zeros(KNOWN), "d2t of type float32; it must have whole numbers"),
    ("lm_head.weight", torch.zeros(KNOWN), "lm_head.weight of shape [24]; it must be a matrix"),
    ("lm_head.weight", torch.zeros(KNOWN, SIZE + 1), "lm_head.weight of shape [24, 33], and config.json asks"),
    ("midlayer.self_attn.q_proj.weight", torch.tensor(1.0), "q_proj.weight of shape []; it must be a matrix"),
    ("midlayer.mlp.gate_proj.weight", torch.tensor(1.0), "gate_proj.weight of shape []; it must be a matrix"),
    ("midlayer.mlp.up_proj.weight", torch.zeros(2, 2), "midlayer.mlp.up_proj.weight of shape [2, 2], and"),
    ("norm.weight", torch.full((SIZE,), float("nan")), "the number nan in norm.weight"),
    ("norm.weight", torch.ones(SIZE).bool(), "norm.weight of type bool"),
]


@pytest.mark.parametrize(("name", "tensor", "message"), TENSORS)
def test_a_wrong_tensor_is_refused_by_its_own_name(
    name: str, tensor: torch.Tensor, message: str, tmp_path: Path
) -> None:
    assert message in refusal(tmp_path, eagle3() | {name: tensor}, CONFIG)


def test_a_head_without_the_norm_before_its_last_product_is_refused(tmp_path: Path) -> None:
    """Without it, the head would compute something else, and no message would say so."""
    weights = eagle3()
    del weights["norm.weight"]
    assert "lacks the tensor norm of shape" in refusal(tmp_path, weights, CONFIG)


def test_more_layers_than_any_head_has_are_refused(tmp_path: Path) -> None:
    config = {"speculators_model_type": "eagle3", "transformer_layer_config": CONFIG | {"num_hidden_layers": 10**9}}
    assert "num_hidden_layers is 1000000000; it must be" in refusal(tmp_path, eagle3(), config)


def test_a_part_of_a_configuration_that_is_no_object_is_refused(tmp_path: Path) -> None:
    weights = {"mtp_layers.0.input_proj.weight": random(SIZE, 2 * SIZE, seed=1)} | layer("mtp_layers.0.")
    assert "text_config is 'x'; it must be an object" in refusal(tmp_path, weights, CONFIG | {"text_config": "x"})


@pytest.mark.parametrize("shape", [None, (), (SIZE,)])
def test_a_medusa_without_the_product_of_its_first_head_is_refused(
    shape: tuple[int, ...] | None, tmp_path: Path
) -> None:
    weights = {"0.0.linear.weight": random(SIZE, SIZE, seed=1), "0.0.linear.bias": random(SIZE, seed=2)}
    weights |= {} if shape is None else {"0.1.weight": torch.ones(shape)}
    assert "heads.0.weight" in refusal(tmp_path, weights, CONFIG)
