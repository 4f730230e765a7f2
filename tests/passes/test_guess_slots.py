"""GuessSlots: slots that stand on no token, behind the tokens of a tree."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from blocks import CAPACITY, prefilled, run
from graphs import model, prepared, stack, tokens, truth
from guess_starts import Starts, module_of
from small_graphs import Layers, hidden_states, small
from torch import Tensor, nn

from specc import passes
from specc.passes.guess_slots import GuessSlots
from specc.runtime.block import Block, GuessTree
from specc.runtime.errors import PassError

pytestmark = pytest.mark.torch

# Tokens 0 to 2, of which 1 and 2 are siblings; two guesses behind 0, one behind 2.
TREE = GuessTree((-1, 0, 0, 0, 2, 3), 3, "guess")
IDS = torch.tensor([[10, 11, 12, 5, 5, 5]])
PATHS = {3: [0], 4: [0, 2], 5: [0]}  # By guess, the tokens before it.
NUMBERS = {3: 0, 4: 0, 5: 1}  # By guess, how many guesses of its token stand before it.


@torch.no_grad()
@pytest.mark.parametrize(
    "family", ["llama", *(pytest.param(name, marks=pytest.mark.slow) for name in ("gemma2", "gpt2"))]
)
@pytest.mark.parametrize("after", [None, 1])
def test_a_guess_is_what_the_model_says_behind_such_states(family: str, after: int | None) -> None:
    size = model(family).config.hidden_size
    graph, starts = prepared(family), Starts(size)
    guesses = GuessSlots("guess", after, 2, module_of(size))
    passes.run(passes.pipeline(Block(TREE), CAPACITY, guesses=[guesses]), graph)
    logits = run(graph, IDS, prefilled(family), tokens().shape[1])["logits"][0]
    for slot, path in PATHS.items():
        torch.testing.assert_close(
            logits[slot], _alone(family, starts, after, path, NUMBERS[slot]), atol=1e-4, rtol=1e-4
        )
    plain = torch.cat([tokens(), IDS[:, :2]], 1)  # Tokens are as without guesses.
    torch.testing.assert_close(logits[1], truth(family, plain)[-1], atol=1e-4, rtol=1e-4)


def _alone(family: str, starts: Starts, after: int | None, path: list[int], number: int) -> Tensor:
    """Return the logits of a guess behind some tokens, by transformers alone."""
    ids = torch.cat([tokens(), IDS[:, path], torch.zeros(1, number + 1, dtype=torch.long)], 1)
    end = ids.shape[1] - number - 1
    _, layers = stack(family)

    def change(states: Tensor) -> Tensor:
        return torch.cat([states[:, :end], starts(states)[:, end - 1, : number + 1]], 1)

    if after is None:

        def enter(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return change(args[0]), *args[1:]

        hook = layers[0].register_forward_pre_hook(enter)
    else:

        def leave(module: nn.Module, args: object, output: Tensor | tuple[Tensor, ...]) -> object:
            return (change(output[0]), *output[1:]) if isinstance(output, tuple) else change(output)

        hook = layers[after].register_forward_hook(leave)
    try:
        return truth(family, ids)[-1]
    finally:
        hook.remove()


@torch.no_grad()
def test_each_guess_may_begin_after_a_layer_of_its_own() -> None:
    """The guesses of the first layer are as if all began there, and the later ones read the later layer's states."""
    size, graph = model("llama").config.hidden_size, prepared("llama")
    parts = [small(_One(size, number), "starts", states=torch.ones(1, 7, size)) for number in (0, 1)]
    guesses = [GuessSlots("guess", number, 1, part, first=number, limit=2) for number, part in enumerate(parts)]
    passes.run(passes.pipeline(Block(TREE), CAPACITY, guesses=guesses), graph)
    logits = run(graph, IDS, prefilled("llama"), tokens().shape[1])["logits"][0]
    _, layers = stack("llama")
    for slot, path in PATHS.items():
        number = NUMBERS[slot]
        ids = torch.cat([tokens(), IDS[:, path], torch.zeros(1, number + 1, dtype=torch.long)], 1)
        end = ids.shape[1] - number - 1
        hooks = []
        for guess in range(number + 1):

            def leave(module: nn.Module, args: object, output: Tensor, guess: int = guess, end: int = end) -> Tensor:
                changed = output.clone()
                changed[:, end + guess] = Starts(size)(output)[:, end - 1, guess]
                return changed

            hooks.append(layers[guess].register_forward_hook(leave))
        alone = truth("llama", ids)[-1]
        for hook in hooks:
            hook.remove()
        torch.testing.assert_close(logits[slot], alone, atol=1e-4, rtol=1e-4)


def test_a_tree_without_later_guesses_has_no_pass_for_them() -> None:
    tree = GuessTree((-1, 0, 0, 1), 2, "guess")
    guesses = [GuessSlots("guess", number, 1, module_of(64), first=number, limit=2) for number in (0, 1)]
    ours = [each for each in passes.pipeline(Block(tree), CAPACITY, guesses=guesses) if isinstance(each, GuessSlots)]
    assert [(each.first, each.topology) for each in ours] == [(0, tree)]


class _One(Starts):
    """One of the two guesses."""

    def __init__(self, size: int, number: int) -> None:
        super().__init__(size)
        self.number = number

    def forward(self, states: Tensor) -> Tensor:
        return super().forward(states)[:, :, self.number : self.number + 1]


def test_what_stands_in_the_slots_of_guesses_counts_for_nothing() -> None:
    graph = prepared("llama")
    guesses = GuessSlots("guess", None, 2, module_of(64))
    passes.run(passes.pipeline(Block(TREE), CAPACITY, guesses=[guesses]), graph)
    others = torch.cat([IDS[:, :3], IDS[:, 3:] + 7], 1)
    ours, theirs = (run(graph, ids, {}, 0)["logits"] for ids in (IDS, others))
    assert torch.equal(ours, theirs)


def test_a_tree_with_more_guesses_than_the_head_has_is_refused() -> None:
    step = GuessSlots("guess", None, 1, module_of(4), TREE)
    with pytest.raises(PassError, match="guess has 1 guesses for a token, and the tree is GuessTree"):
        passes.run([step], small(Layers(), x=hidden_states()))


def test_a_layer_that_the_model_lacks_is_refused() -> None:
    step = replace(GuessSlots("guess", 3, 2, module_of(4)), topology=TREE)
    with pytest.raises(PassError, match=r"no layer 3; the graph has \[0, 1\]"):
        passes.run([step], small(Layers(), x=hidden_states()))
