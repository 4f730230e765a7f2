"""RAPID's draft: the target on a part of the prompt."""

from __future__ import annotations

import pytest
from toys import World, prompts

from specc.runtime.drafters.short_context import shortened

PROMPT = [token for prompt in prompts(6, seed=5) for token in prompt][:200]


@pytest.mark.parametrize("most", [1, 2, 10, 32, 64, 199])
def test_a_shortened_prompt_has_its_end_and_chunks_in_their_order(most: int) -> None:
    short = shortened(PROMPT, most, 8)
    end = max(1, most // 2)
    assert len(short) <= most and short[len(short) - end :] == PROMPT[-end:]
    head, text = short[: len(short) - end], PROMPT[: len(PROMPT) - end]
    chunks = [text[start : start + 8] for start in range(0, len(text), 8)]
    while head:  # each chunk is one of the prompt's, after the one before
        while chunks[0] != head[: len(chunks[0])]:
            chunks.pop(0)
        head = head[len(chunks.pop(0)) :]


def test_a_prompt_that_is_short_enough_stays() -> None:
    assert shortened(PROMPT, 200, 8) == PROMPT


def test_the_chunks_that_share_rare_tokens_with_the_end_stay() -> None:
    common, rare = [1, 2, 3, 4], [1, 2, 9, 9]
    prompt = [*common, *rare, *common, *common, 5, 9, 1, 2]
    assert shortened(prompt, 8, 4) == [*rare, 5, 9, 1, 2]


def test_the_draft_reads_fewer_rows_than_the_target() -> None:
    world = World()
    decoder = world.method("short-context", context_tokens=32)
    decoder.run(PROMPT, 40)
    assert 32 <= len(world.caches["short"]) <= 32 + 40 < len(world.cache)


def test_with_the_whole_prompt_the_draft_is_the_target() -> None:
    """Every draft is accepted whole then."""
    decoder = World().method("short-context", context_tokens=200)
    _, accepted = decoder.run(PROMPT, 40)
    assert accepted == 40 * 3 // 4


def test_rapid_with_eta_0_gives_the_tokens_of_plain_decoding_and_differs_otherwise() -> None:
    plain = World().method("plain").run(PROMPT, 60)[0]
    changed = []
    for eta in (0.0, 3.0, 30.0):
        tokens = World().method("rapid", context_tokens=16, eta=eta).run(PROMPT, 60)[0]
        changed.append(sum(a != b for a, b in zip(tokens, plain, strict=True)))
    assert changed[0] == 0 < changed[1] and changed[2] > 0
