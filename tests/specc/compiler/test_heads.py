"""Trained heads: which ones fit a target, and their graphs. tests/test_heads.py compiles them and decodes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import published_heads
import pytest
import torch
from torch.fx import Graph, GraphModule
from toy_heads import make_head, taps_of, target_of
from transformers import PreTrainedModel

from specc.compiler.heads import fit_all_heads, fit_heads, graft, load_heads, prepare_head
from specc.heads import Head, HeadConfig, save_head
from specc.heads.specdec_plus_plus import AcceptanceHead
from specc.huggingface import describe, load_model
from specc.passes.find import outputs
from specc.recipes import HeadFacts
from specc.runtime.errors import HeadError, RecipeError, SpeccWarning
from specc.training.cut import cut

pytestmark = pytest.mark.torch
NO_GRAPH = GraphModule({}, Graph())  # of a target, whose rows these heads do not read


@pytest.fixture(scope="module")
def target(model: Path) -> PreTrainedModel:
    return load_model(str(model))


def fit(target: PreTrainedModel, head: Head) -> Any:
    (one,) = fit_heads({head.config.architecture: head}, target, describe(target, "models/tiny"))
    return one


def saved(head: Head, directory: Path) -> Path:
    save_head(head, directory, {"card.json": "{}"})
    return directory


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("hidden_size", "whose hidden_size is 65, and that of models/tiny is 64"),
        ("vocab_size", "whose vocab_size is 513, and that of models/tiny is 512"),
        ("layers", "whose layers is 4, and that of models/tiny is 3"),
    ],
)
def test_a_head_of_another_model_is_refused_and_both_are_named(
    target: PreTrainedModel, field: str, message: str
) -> None:
    head = make_head("medusa", target)
    object.__setattr__(head.config.target, field, getattr(head.config.target, field) + 1)
    with pytest.raises(
        RecipeError, match=f"^head medusa was trained for tiny, {message}; give a head that was trained"
    ):
        fit(target, head)


def test_a_head_of_a_draft_model_is_fitted_to_the_draft_model(target: PreTrainedModel) -> None:
    draft = cut(target, [0])
    head = AcceptanceHead(
        HeadConfig(
            architecture="specdec_plus_plus",
            target=replace(target_of(target), layers=1),
            taps=(1,),
            draft_vocab_size=512,
            settings={"blocks": 1},
        )
    )
    models = {"target": (target, describe(target, "big")), "assistant": (draft, describe(draft, "small"))}
    medusa = make_head("medusa", target)
    ours, theirs = fit_all_heads({"specdec_plus_plus": head, "medusa": medusa}, models)
    assert (ours.name, ours.facts.reads) == ("medusa", "target")
    assert (theirs.name, theirs.facts.reads) == ("specdec_plus_plus", "assistant")
    with pytest.raises(RecipeError, match="whose layers is 1, and that of big is 3"):
        fit_all_heads({"specdec_plus_plus": head}, models | {"assistant": models["target"]})


@pytest.mark.parametrize("tap", [4, -2])  # 3 is the state behind the final norm
def test_a_head_that_reads_a_layer_that_is_not_there_is_refused(target: PreTrainedModel, tap: int) -> None:
    message = rf"reads the states after layer {tap}, and models/tiny has layers 0\.\.2; give a head"
    with pytest.raises(RecipeError, match=message):
        fit(target, make_head("eagle3", target, taps=(0, tap)))


def test_a_head_of_a_model_with_other_weights_is_taken_with_a_warning(target: PreTrainedModel) -> None:
    head = make_head("medusa", target)
    object.__setattr__(head.config.target, "digest", "0" * 16)
    with pytest.warns(
        SpeccWarning, match="head medusa was trained for tiny, and the embeddings of models/tiny are oth"
    ):
        fit(target, head)


def test_two_heads_of_one_architecture_are_refused(target: PreTrainedModel, tmp_path: Path) -> None:
    directories = [saved(make_head("medusa", target), tmp_path / name) for name in ("a", "b")]
    with pytest.raises(RecipeError, match=r"a and .*b are both heads of architecture medusa; give one of them"):
        load_heads(directories)
    assert list(load_heads(directories[:1])) == ["medusa"]


def test_a_directory_without_a_head_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HeadError, match="there is no head at "):
        load_heads([tmp_path / "nothing"])


def test_recipes_learn_how_many_tokens_a_head_guesses(target: PreTrainedModel) -> None:
    assert fit(target, make_head("eagle3", target)).facts == HeadFacts(stack=1, recurrent=True, taps=(0, 1, -1))
    assert fit(target, make_head("medusa", target)).facts == HeadFacts(
        stack=3, recurrent=False, attends=False, taps=(-1,)
    )


@torch.no_grad()
def test_the_graphs_compute_what_the_module_computes(target: PreTrainedModel) -> None:
    known_tokens = torch.tensor([7, 3, 400, 9])
    head = make_head("eagle3", target, known_tokens)
    one = fit(target, head)
    graph = prepare_head(one, NO_GRAPH, 64, None).graph
    ids, positions = torch.tensor([[5, 6, 7, 8]]), torch.arange(4)[None]
    state = head.fuse(taps_of(target, ids, head.taps))
    expected, values = head(ids, positions, state), graph(ids, positions, state)
    torch.testing.assert_close(values["logits"], expected["logits"], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(values["next_state"], expected["state"], atol=1e-4, rtol=1e-4)
    assert torch.equal(values["vocabulary"], known_tokens)
    spliced = graft(one)
    torch.testing.assert_close(spliced.module(taps_of(target, ids, head.taps))["state"], state, atol=1e-4, rtol=1e-4)
    assert (spliced.name, spliced.taps, list(outputs(spliced.module))) == ("eagle3", (0, 1, -1), ["state"])


def test_the_targets_table_is_not_copied(target: PreTrainedModel) -> None:
    one = fit(target, make_head("eagle3", target))
    graph = prepare_head(one, NO_GRAPH, 64, None).graph
    table: Any = target.get_input_embeddings().weight
    assert [t.data_ptr() for t in graph.buffers() if t.shape == table.shape] == [table.data_ptr()]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, None),
        ({"hidden_size": 32}, "whose hidden_size is 32, and that of models/tiny is 64"),
        ({"vocab_size": 40}, "whose vocab_size is 40, and that of models/tiny is 512"),
    ],
)
def test_a_head_of_others_is_fitted_or_refused_with_both_numbers(
    target: PreTrainedModel, change: dict[str, int], message: str | None, tmp_path: Path
) -> None:
    config = published_heads.CONFIG | {"hidden_size": 64, "vocab_size": 512} | change
    size = config["hidden_size"]
    weights = {name: torch.ones(()).expand(shape) for name, shape in _eagle_shapes(size).items()}
    source = load_heads([published_heads.write(tmp_path, weights, config)])
    if message:
        with pytest.raises(RecipeError, match=f"^head eagle was trained for the model of its checkpoint, {message}"):
            fit_heads(source, target, describe(target, "models/tiny"))
    else:
        (one,) = fit_heads(source, target, describe(target, "models/tiny"))
        table: Any = target.get_input_embeddings().weight
        assert one.module.product is not None and one.module.product.data_ptr() == table.data_ptr()


def _eagle_shapes(size: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a head in EAGLE's format, of a hidden size."""
    shapes: dict[str, tuple[int, ...]] = {
        **dict.fromkeys((f"layers.0.self_attn.{n}_proj.weight" for n in "qo"), (size, size)),
        **dict.fromkeys((f"layers.0.self_attn.{n}_proj.weight" for n in "kv"), (size // 2, size)),
        **dict.fromkeys((f"layers.0.mlp.{n}_proj.weight" for n in ("gate", "up")), (48, size)),
        "layers.0.mlp.down_proj.weight": (size, 48),
        "layers.0.post_attention_layernorm.weight": (size,),
        "fc.weight": (size, 2 * size),
    }
    return shapes
