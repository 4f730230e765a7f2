"""A trained head follows the text: which rows it has, and which states they stand on."""

from __future__ import annotations

import pytest
from toys import READING_HEADS, World, prompts

from specc.recipes import DECODE, committing, prefill
from specc.recipes.blocks import head_block
from specc.runtime.call import finish
from specc.runtime.draft import Outputs
from specc.runtime.draft_head import HeadRoot, draft_rows, reading_engines, row_keys, running_head
from specc.runtime.engine import Engine
from specc.runtime.sequence import Cache, Sequence
from specc.runtime.tree import Tree

PROMPT = prompts(3)[2][:20]


def text_of(world: World, tokens: list[int]) -> Sequence:
    """Return a sequence whose target has rows and states of all tokens but the last."""
    seq = Sequence(list(tokens), world.caches)
    world.prefill.extend(seq.cache, seq.cache.sync(seq.tokens[:-1]))
    return seq


def engines_of(world: World, *slots: int) -> list[Engine]:
    return [world.engine(head_block("eagle3", Tree.chain(count), last_row=count > 1)) for count in slots]


def root_of(engines: list[Engine], seq: Sequence) -> HeadRoot:
    root = finish(running_head(engines, seq))
    assert root is not None
    return root


def test_it_has_a_row_for_each_token_but_the_first() -> None:
    world = World()
    root = root_of(engines_of(world, 1, 4, 64), text_of(world, PROMPT))
    assert len(root.cache) == len(PROMPT) - 1 and root.outputs.next_state_NS is not None
    assert len(root.outputs.ids_N) == len(root.outputs.next_state_NS) == 1


def state_of(outputs: Outputs) -> list[float]:
    """Return the next state of the only row."""
    assert outputs.next_state_NS is not None
    (state,) = outputs.next_state_NS
    return [float(number) for number in state]


@pytest.mark.parametrize("slots", [(1,), (1, 4), (1, 4, 64), (3, 5)])
def test_the_outputs_are_the_same_however_many_tokens_a_call_runs(slots: tuple[int, ...]) -> None:
    world, other = World(), World()
    ours, theirs = (root_of(engines_of(w, *s), text_of(w, PROMPT)).outputs for w, s in ((world, slots), (other, (1,))))
    assert ours.ids_N[0] == theirs.ids_N[0] and state_of(ours) == state_of(theirs)


def test_a_step_runs_what_is_new_by_the_narrowest_engine() -> None:
    world = World()
    engines, seq = engines_of(world, 1, 4, 64), text_of(world, PROMPT)
    root_of(engines, seq)
    assert [engine.calls for engine in engines] == [0, 0, 1]
    longer = text_of(world, [*PROMPT, 3, 4, 5])
    root_of(engines, longer)
    assert [engine.calls for engine in engines] == [0, 1, 1]
    root_of(engines, longer)  # The last row runs again, since its outputs are needed.
    assert [engine.calls for engine in engines] == [1, 1, 1]


def test_a_text_with_another_first_token_has_other_rows() -> None:
    """Row 0 is the second token, beside the state at the first one."""
    world, other = World(), World()
    engines = engines_of(world, 1, 64)
    root_of(engines, text_of(world, [1, *PROMPT]))
    again = root_of(engines, text_of(world, [2, *PROMPT])).outputs
    new = root_of(engines_of(other, 1, 64), text_of(other, [2, *PROMPT])).outputs
    assert state_of(again) == state_of(new)


@pytest.mark.parametrize("tokens", [[5], []])
def test_a_text_without_a_state_before_a_token_has_no_rows(tokens: list[int]) -> None:
    world = World()
    seq = Sequence(tokens, world.caches)
    assert finish(running_head(engines_of(world, 1), seq)) is None


def test_rows_of_a_target_that_returns_no_states_are_not_read() -> None:
    world = World()
    seq = Sequence(list(PROMPT), world.caches)
    world.engine(DECODE).extend(seq.cache, seq.tokens[:-1])
    assert finish(running_head(engines_of(world, 1), seq)) is None


def test_a_head_without_rows_runs_the_last_token_alone_and_leaves_the_targets_rows() -> None:
    world = World()
    seq = text_of(world, PROMPT)
    engine = world.engine(head_block("hydra", Tree.chain(1), READING_HEADS["hydra"]))
    root = root_of([engine], seq)
    assert root.cache is seq.cache and len(seq.cache) == len(PROMPT) - 1 and engine.calls == 1
    assert engine.runner.inputs["state"][0, 0, 0] == seq.cache.states["hydra"][len(PROMPT) - 2, 0]


def test_an_engine_that_leaves_out_layers_does_not_read_the_text() -> None:
    world, facts = World(), READING_HEADS["clover"]
    draft = world.engine(head_block("clover", Tree.chain(1), facts, drafts=True))
    feed, prefill = (world.engine(head_block("clover", Tree.chain(count), facts, last_row=True)) for count in (4, 64))
    assert reading_engines(draft, prefill, feed) == [feed, prefill]
    whole = world.engine(head_block("eagle3", Tree.chain(1)))
    assert reading_engines(whole, prefill, feed) == [whole, feed, prefill]


def test_numbers_of_rows_tell_texts_apart_from_the_first_token_on() -> None:
    assert row_keys([1, 2, 3]) != row_keys([9, 2, 3]) and row_keys([1, 2, 3])[1:] == [3]
    assert row_keys([1]) == row_keys([]) == []


def test_rows_of_a_text_have_the_numbers_by_which_each_cache_has_them() -> None:
    world = World()
    engines = [*engines_of(world, 1, 4), world.engine(DECODE), world.engine(prefill("assistant"))]
    tokens = [5, 6, 7, 8]
    assert draft_rows(engines, tokens) == {"eagle3": row_keys(tokens)[:-1], "assistant": [5, 6, 7]}


def test_states_of_all_heads_are_kept_whichever_head_drafts() -> None:
    world = World()
    seq = text_of(world, PROMPT)
    world.engine(committing(DECODE, READING_HEADS)).extend(seq.cache, [7])
    assert isinstance(seq.cache, Cache) and set(seq.cache.states) == set(READING_HEADS)
