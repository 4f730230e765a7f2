"""Two experts: what is unrolled together is what the head makes call by call, and what the other expert learns."""

from __future__ import annotations

import pytest
import torch
from small_head import head, recordings, teacher
from torch.nn import functional

from specc.heads.head import parts
from specc.heads.jakiro import Jakiro
from specc.training.batches import collate, fill_up
from specc.training.jakiro import COURSE, product, sibling_loss, unroll

pytestmark = pytest.mark.torch
STEPS = 4


def test_each_depth_has_the_logits_of_a_draft_from_its_root() -> None:
    """A draft stands on the state of the expert whose token the text has. The last depth needs no call of its own."""
    module = head("jakiro").train().requires_grad_(False)
    assert isinstance(module, Jakiro) and module.vocabulary is not None
    module.attach(teacher().embedding, teacher().product)
    COURSE.start(module, teacher(), recordings(40, "jakiro"))  # So that the first expert is often right.
    for expert in (module.one, module.two):
        torch.nn.init.normal_(expert.down.weight, std=0.3)
    batch = collate(recordings(2, "jakiro", length=16))
    batch.tokens[:, ::3] = 7  # Here and there it is wrong.
    unrolled = [product(module, k, rows) for k, rows in enumerate(unroll(module, batch, STEPS))]
    states, followed = module.fuse(batch.states[:, :-1].float()), set()
    for root in range(batch.slots - STEPS):
        tokens, state = batch.tokens[:1, 1:], states[:1, : root + 1]
        for depth in range(STEPS - 1):
            end = root + depth + 1
            result = module(tokens[:, :end], torch.arange(end)[None], state)
            truth = result["logits"][0, -1]
            torch.testing.assert_close(unrolled[depth][0, end - 1], truth[0], atol=_limit(truth), rtol=1e-4)
            if depth == STEPS - 2:
                torch.testing.assert_close(unrolled[depth + 1][0, end], truth[2], atol=_limit(truth), rtol=1e-4)
            number = int(module.vocabulary[truth[0].argmax()] != tokens[0, end])
            followed.add(number)
            own = parts(result["state"][:, -1:], 2)[number]
            state = torch.cat([state, functional.pad(own, (0, module.size))], 1)
    assert followed == {0, 1}


def _limit(logits: torch.Tensor) -> float:
    return 1e-4 * float(logits.abs().max())  # A head without norms has large numbers at its depths.


def test_one_depth_is_the_first_experts() -> None:
    module, batch = head("jakiro"), collate(recordings(1, "jakiro", length=9))
    (pair,) = unroll(module, batch, 1)
    torch.testing.assert_close(pair, unroll(module, batch, 2)[0])


def test_in_evaluation_the_siblings_are_in_the_order_of_the_other_expert() -> None:
    module = head("jakiro")
    assert isinstance(module, Jakiro)
    rows = torch.randn(5, 2 * module.size, generator=torch.Generator().manual_seed(2))
    first, other = (module.logits(part) for part in parts(rows, 2))
    order = product(module, 0, rows).argsort(-1, descending=True)
    for row in range(len(rows)):
        token = int(first[row].argmax())
        siblings = [choice for choice in other[row].argsort(descending=True).tolist() if choice != token]
        assert order[row].tolist() == [token, *siblings]


def test_the_other_expert_learns_the_models_probabilities_without_the_first_experts_token(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its loss is least with the model's own states, and the loss does not read what it says of that token."""
    module, batch = head("jakiro"), collate(recordings(2, "jakiro", length=9))
    assert isinstance(module, Jakiro) and module.product is not None
    final = batch.final[:, 1:].float()
    first = torch.randn(final.shape, generator=torch.Generator().manual_seed(3))
    right = sibling_loss(module, batch, torch.cat([first, final], -1), 0)
    noise = 0.3 * torch.randn(final.shape, generator=torch.Generator().manual_seed(4))
    assert sibling_loss(module, batch, torch.cat([first, final + noise], -1), 0) > right
    choice = module.logits(first).argmax(-1)
    logits = module.logits(final)
    spoilt = logits.scatter_add(-1, choice[..., None], torch.full((*choice.shape, 1), 5.0))
    calls = iter([fill_up(module.logits(first[batch.rows(0)])), fill_up(spoilt[batch.rows(0)])])
    monkeypatch.setattr(module, "logits", lambda x: next(calls))
    torch.testing.assert_close(sibling_loss(module, batch, torch.cat([first, final], -1), 0), right)


def test_a_draft_of_several_tokens_costs_one_call_less() -> None:
    module = head("jakiro")
    assert module.draft_cost(4, 1000) == 3 * module.draft_cost(1, 1000) == 3 * module.draft_cost(2, 1000)
