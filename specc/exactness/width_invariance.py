"""Measure whether the target gives the same tokens at every width: decode against verify, on golden text. No torch.

T  tokens of a text      V  vocabulary
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from specc.exactness.golden import Case
from specc.runtime.call import Call
from specc.runtime.engine import Engine
from specc.runtime.sequence import Cache
from specc.runtime.session import Session
from specc.runtime.tree import Tree
from specc.runtime.width_invariance import WidthInvariance, exact_engine


@dataclass(frozen=True, kw_only=True)
class WidthInvariancePolicy:
    """The numbers that say how much is measured, and what counts as invariant."""

    # The largest number of slots of an engine that is compared. Wider engines run the same kernels. If every engine is
    # wider, the narrowest engines are compared.
    widest: int = 16
    # Tokens of golden text that each engine runs, so that the share of changed tokens means something.
    tokens: int = 128
    # Tokens after which a target without any difference counts as invariant. Where all sums are rounded otherwise and
    # then to 8 bits, tokens differ long before. Where some are, they need not: there the graph decides.
    enough_if_invariant: int = 64
    # Tokens that run in a slot of their own each, to compare the slots of one width.
    slot_tokens: int = 8
    # A token may change where the two best logits of plain decoding are closer. It is the tolerance of the golden test.
    near_tie: float = 1e-3
    # The largest difference of two logits. fp32 has 3e-5 at logits of 30; rounded activations have 0.6 and more.
    difference: float = 1e-3


POLICY = WidthInvariancePolicy()


def measure(
    session: Session, cases: Sequence[Case], policy: WidthInvariancePolicy = POLICY, amplified: bool = False
) -> WidthInvariance | None:
    """Run golden text through decode, and through the engines that recipes verify with, and compare.

    The session forgets the rows of its conversation.

    Args:
        session: a session on the bundle.
        cases: the golden cases. The tokens of their answers are compared.
        policy: how much is measured, and what counts as invariant.
        amplified: whether the graphs of the engines can amplify a last bit that depends on the width. Then the target
            does not count as invariant, whatever the text shows.

    Returns:
        None if no recipe verifies with an engine of 2 slots or more.
    """
    names = {name for recipe in session.bundle.manifest.recipes for name in recipe.verify}
    wide = [e for e in session.engines.specs() if e.name in names and e.block.slots > 1]
    if not wide:
        return None
    widest = max(policy.widest, min(e.block.slots for e in wide))
    specs = [e for e in wide if e.block.slots <= widest]
    runs = [_Run(session, spec.name) for spec in specs]
    tokens, worst, beyond = 0, 0.0, amplified
    changed = np.zeros(len(runs), np.int64)
    for case in cases:
        invariant = not beyond and worst <= policy.difference
        text = case.token_ids[: (policy.enough_if_invariant if invariant else policy.tokens) - tokens]
        if not text:
            break
        prompt = Cache(session.cache.store)
        session.engines.prefill(len(case.prompt_ids)).extend(prompt, case.prompt_ids)
        plain_TV = _Run(session, "decode").logits(prompt, text)
        second_T, first_T = np.partition(plain_TV, -2, axis=-1)[:, -2:].T
        for index, run in enumerate(runs):
            logits_TV = run.logits(prompt, text)
            differs_T = logits_TV.argmax(-1) != plain_TV.argmax(-1)
            changed[index] += differs_T.sum()
            beyond |= bool((differs_T & (first_T - second_T >= policy.near_tie)).any())
            worst = max(worst, float(np.abs(logits_TV - plain_TV).max()))
        tokens += len(text)
    slots_agree = _slots_agree(session, cases, policy.slot_tokens)
    session.cache.sync([])
    return WidthInvariance(
        backend=session.engines.backend,
        holds=not beyond and worst <= policy.difference,
        difference=float(f"{worst:.3g}"),
        changed=round(float(changed.max()) / max(1, tokens), 4),
        tokens=tokens,
        slots=tuple(sorted({spec.block.slots for spec in specs})),
        slots_agree=slots_agree,
    )


class _Run:
    """A way to run a text through one engine: as many tokens a call as its longest path has slots, or fewer."""

    def __init__(self, session: Session, name: str, per_call: int = 0, padding: int | None = None) -> None:
        """Choose the path.

        Args:
            session: the session whose engine it is.
            name: the engine.
            per_call: tokens of a call; 0 is as many as the path has slots.
            padding: the token in the slots that are not on the path; None leaves them out, or repeats the text.
        """
        self.engine: Engine = session.engines[name]
        self.tree = self.engine.block.tree or Tree.chain(self.engine.slots)
        slot, path = int(np.argmax(self.tree.depth)), []
        while slot >= 0:
            path.append(slot)
            slot = self.tree.parents[slot]
        self.path = path[::-1][: per_call or None]
        self.padding = padding

    def logits(self, prompt: Cache, text: Sequence[int]) -> np.ndarray:
        """Return the logits [T, V] after each token of a text that follows the rows of a prompt."""
        cache, rows, start = Cache(prompt.store, prompt.tokens), [], 0
        while start < len(text):
            chunk = text[start : start + len(self.path)]
            path = self.path[: len(chunk)]
            if self.padding is None:
                tokens = [chunk[min(int(depth), len(chunk) - 1)] for depth in self.tree.depth]
            else:
                tokens = [self.padding] * self.tree.slots
            for slot, token in zip(path, chunk, strict=True):
                tokens[slot] = token
            outputs = Call(self.engine, cache, 0, tokens, self.tree).run()
            assert outputs.logits_NV is not None
            if outputs.kept_slots is not None:  # The end of the path may be dropped, and comes again in the next call.
                rest = outputs.kept_slots.tolist()
                path, tokens = [rest.index(slot) for slot in path if slot in rest], [tokens[slot] for slot in rest]
            rows.append(outputs.logits_NV[path].copy())
            cache.commit(tokens, path, outputs)
            start += len(path)
        return np.concatenate(rows)


def _slots_agree(session: Session, cases: Sequence[Case], tokens: int) -> bool:
    """Tell whether, at one width, a token's logits have the same bits in each slot, whatever the other slots hold.

    It looks at the engines that can decode a recipe exactly.
    """
    manifest, case = session.bundle.manifest, cases[0]
    specs = [exact_engine(manifest, recipe, session.engines.backend) for recipe in manifest.recipes]
    for name in dict.fromkeys(spec.name for spec in specs if spec):
        prompt, text = Cache(session.cache.store), case.token_ids[:tokens]
        session.engines.prefill(len(case.prompt_ids)).extend(prompt, case.prompt_ids)
        ways = ((0, None), (1, text[0]), (1, text[-1]), (2, None))
        first, *others = (_Run(session, name, count, token).logits(prompt, text) for count, token in ways)
        if not all(np.array_equal(first, other) for other in others):
            return False
    return True
