"""A mixture of attentions: what each of its three attentions reads."""

from __future__ import annotations

import pytest
import torch
from small_head import SIZE, head, recordings

from specc.heads.mixture_of_attentions import MixtureOfAttentions
from specc.training.batches import collate
from specc.training.mixture_of_attentions import COURSE, taps_of

pytestmark = pytest.mark.torch
STEPS = 3


def _module() -> MixtureOfAttentions:
    module = head("mixture_of_attentions")
    assert isinstance(module, MixtureOfAttentions)
    return module


def test_the_states_of_a_token_look_at_one_another_and_not_at_other_tokens() -> None:
    module = _module()
    states = torch.randn(1, 4, len(module.taps), SIZE, generator=torch.Generator().manual_seed(0))
    before = module.attend_to_layers(states)
    states[0, 2, 0] += 1
    changed = (module.attend_to_layers(states) - before).abs().amax(-1) > 1e-6
    assert changed[0].tolist() == [[row == 2] * len(module.taps) for row in range(4)]


def test_a_draft_stands_on_the_last_state_that_the_model_gave() -> None:
    module = _module()
    batch = collate(recordings(2, "mixture_of_attentions", length=9))
    unrolled = [COURSE.product(module, k, rows) for k, rows in enumerate(COURSE.unroll(module, batch, STEPS))]
    states = module.fuse(batch.states[:, :-1].float())
    for root in range(batch.slots - STEPS):
        state = torch.cat([states[:1, : root + 1], states[:1, root : root + 1].expand(1, STEPS - 1, SIZE)], 1)
        outputs = module(batch.tokens[:1, 1 : root + 1 + STEPS], torch.arange(root + STEPS)[None], state)
        torch.testing.assert_close(outputs["state"], state)
        for depth in range(STEPS):
            row, whole = unrolled[depth][0, root + depth], outputs["logits"][0, root + depth]
            torch.testing.assert_close(row, whole, atol=1e-4, rtol=1e-4)


def test_a_draft_reads_the_states_of_all_tokens_before_it() -> None:
    module = _module()
    tokens, positions = torch.tensor([[3, 1, 4, 1]]), torch.arange(4)[None]
    state = torch.randn(1, 4, SIZE, generator=torch.Generator().manual_seed(0))
    before = module(tokens, positions, state)["logits"]
    state[0, 0] += 1
    assert bool(((module(tokens, positions, state)["logits"] - before).abs().amax(-1) > 1e-6).all())


@pytest.mark.parametrize(("layers", "taps"), [(1, (-1,)), (3, (0, 1, -1)), (12, (1, 3, 5, 7, 9, -1))])
def test_the_layers_that_are_read_lie_in_even_distances(layers: int, taps: tuple[int, ...]) -> None:
    assert taps_of(layers) == taps
