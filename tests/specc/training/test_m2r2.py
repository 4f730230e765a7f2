"""M2R2's training: what it runs is what a draft runs."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from blocks import CAPACITY, presents, run
from tiny_heads import batch, bound, model, random_head
from torch import Tensor

from specc import passes
from specc.compiler.graphs import prepare
from specc.compiler.heads import TargetHead
from specc.compiler.in_model_heads import bridges
from specc.heads.layer import rotate
from specc.heads.m2r2 import M2R2
from specc.recipes import HeadFacts
from specc.runtime.block import Block
from specc.runtime.errors import HeadError
from specc.runtime.tree import Tree
from specc.training.batches import Batch
from specc.training.course import Course
from specc.training.m2r2 import COURSE, deeper, gate_loss, taps_of
from specc.training.states import layers_of

pytestmark = pytest.mark.torch
TOKENS = torch.randint(1, 100, (2, 8), generator=torch.Generator().manual_seed(2))


@cache
def course() -> Course:
    return bound(COURSE)


@cache
def head() -> M2R2:
    built = random_head(COURSE, taps=(0, 1))
    assert isinstance(built, M2R2)
    return built


def batch_with_states() -> Batch:
    """Return a text with what the model's last product reads of it."""
    with torch.no_grad():
        final: Any = model().base_model
        return replace(batch(TOKENS), final=final(input_ids=TOKENS).last_hidden_state)


@torch.no_grad()
def test_each_depth_is_what_the_models_norm_and_product_say_of_the_second_stream() -> None:
    truth = course().product(head(), 0, norm_of_model(streams()[-1]))[:, 1:]
    for depth, rows in enumerate(course().unroll(head(), batch(TOKENS), 2)):
        torch.testing.assert_close(course().product(head(), depth, rows), truth, atol=1e-4, rtol=1e-4)


def norm_of_model(x: Tensor) -> Tensor:
    norm: Any = model().base_model
    result: Tensor = norm.norm(x)
    return result


@torch.no_grad()
def streams() -> list[Tensor]:
    """Return the second stream behind each layer, by attention that is written out over each layer's own products."""
    backbone: Any = model().base_model
    states: list[Tensor] = list(backbone(input_ids=TOKENS, output_hidden_states=True).hidden_states[:3])
    cos, sin = (table[:, None] for table in backbone.rotary_emb(states[0], torch.arange(TOKENS.shape[1])[None]))

    def attend(number: int, query: Tensor) -> Tensor:
        layer: Any = layers_of(model())[number]
        read, own = layer.input_layernorm(states[number]), layer.self_attn
        key, value = (
            product(read).unflatten(-1, (-1, own.head_dim)).transpose(1, 2) for product in (own.k_proj, own.v_proj)
        )
        by_head = query.unflatten(-1, (-1, own.head_dim)).transpose(1, 2)
        key, value = (x.repeat_interleave(by_head.shape[1] // key.shape[1], 1) for x in (key, value))
        scores = rotate(by_head, cos, sin) @ rotate(key, cos, sin).mT
        count = TOKENS.shape[1]
        scores = (scores * own.head_dim**-0.5).masked_fill(~torch.ones(count, count).tril().bool(), float("-inf"))
        attended: Tensor = scores.softmax(-1) @ value
        return attended.transpose(1, 2).flatten(2)

    return head().accelerated(states, attend)


@torch.no_grad()
def test_an_engine_runs_the_second_stream_that_was_trained() -> None:
    """The exit of a graph over a cache, in one call or two, says what training says. So does the gate."""
    count = TOKENS.shape[1]
    fast = streams()
    truth = course().product(head(), 0, norm_of_model(fast[-1]))[0]
    gates = head().gate(torch.cat(fast, -1))[0]
    target = TargetHead(
        name="m2r2", module=head(), outputs=(), facts=HeadFacts(in_model=True), hidden_size=fast[0].shape[-1]
    )
    for slots in (count, count // 2):
        block = Block(Tree.chain(slots), ("logits", "state:m2r2"), head().draft_layers)
        graph = passes.fork(prepare(model(), CAPACITY, None).graph)
        passes.run(passes.pipeline(block, CAPACITY, (), (), bridges([target])), graph)
        results: list[Any] = []
        past: dict[str, Tensor] = {}
        for start in range(0, count, slots):
            outputs = run(graph, TOKENS[:1, start : start + slots], past, start)
            past = presents(outputs)
            results.append(outputs)
        for name, expected in (("logits", truth), ("state_m2r2", gates)):
            torch.testing.assert_close(torch.cat([each[name][0] for each in results]), expected, atol=1e-3, rtol=1e-3)


def test_the_adapters_are_trained_to_come_near_deeper_states_and_the_model_is_not() -> None:
    text = batch_with_states()
    features = course().unroll(head(), text, 1)
    assert course().besides is not None
    course().besides(head(), text, features).backward()  # type: ignore[misc]  # it was checked one line above
    assert all(parameter.grad is not None and parameter.grad.abs().max() > 0 for parameter in head().parameters())
    assert all(parameter.grad is None for parameter in model().parameters())


def test_the_gate_learns_where_the_first_choice_of_the_exit_is_the_models() -> None:
    """A gate that says so of each row has no loss, and one that says the opposite has much."""
    text = batch_with_states()
    rows = course().unroll(head(), text, 1)[0].detach()
    ours, models = (course().product(head(), 0, x).argmax(-1) for x in (rows, text.final[:, 1:].float()))
    rows = torch.where(torch.arange(rows.shape[1])[:, None] % 2 == 0, text.final[:, 1:].float(), rows)
    right = torch.where(torch.arange(rows.shape[1]) % 2 == 0, models, ours) == models
    assert right.any() and not right.all()
    gates = 20.0 * (2.0 * right.float() - 1.0)[..., None]
    assert float(gate_loss(head(), text, rows, gates)) < 1e-6
    assert float(gate_loss(head(), text, rows, -gates)) > 10


def test_the_slopes_of_the_gate_stay_in_the_gate() -> None:
    text = batch_with_states()
    head().zero_grad()
    run = course()
    run.unroll(head(), text, 1)
    owner: Any = run.unroll
    owner.__self__.gates.sum().backward()
    with_slopes = {name.split(".")[0] for name, p in head().named_parameters() if p.grad is not None and p.grad.any()}
    assert with_slopes == {"latents", "latent_query", "score"}


@pytest.mark.parametrize(("layers", "taps"), [(2, 1), (3, 1), (12, 3), (30, 7)])
def test_a_quarter_of_the_layers_draft_and_the_last_one_comes_near_the_end(layers: int, taps: int) -> None:
    first = taps_of(layers)
    assert first == tuple(range(taps))
    stub = SimpleNamespace(taps=first, config=SimpleNamespace(target=SimpleNamespace(layers=layers)))
    rate = layers // taps
    assert deeper(stub) == tuple(range(rate - 1, rate * taps, rate))  # type: ignore[arg-type]


def test_a_model_of_one_layer_is_refused() -> None:
    with pytest.raises(HeadError, match="the model has 1 layer, and M2R2 leaves some out"):
        taps_of(1)
