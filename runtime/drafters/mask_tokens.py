"""Chains that the target without its middle layers guesses in one call (S3D, Zhong & Bharadwaj 2024, arXiv:2405.20314).

Behind the pending token stand slots of mask tokens. Each guesses a token further ahead.
"""

from __future__ import annotations

from ..block import GuessTree
from ..call import Call
from ..draft import ONE_SLOT, Draft
from ..draws import DrawnProbs, Draws
from ..engine import Engine
from ..errors import RecipeError
from ..rng import Use
from ..sequence import Sequence
from . import Drafter, Drafting, Proposal, check_probability


class MaskTokens(Drafter):
    """A drafter whose one call over the target's cache guesses all tokens of a draft.

    The engine reads the target's committed rows. It writes scratch rows past their end, which verify overwrites.
    """

    def __init__(self, draft: Engine, assistant_confidence_threshold: float = 0.0, sample: bool = False) -> None:
        """Keep the engine and the parameter.

        Args:
            draft: an engine over the target's cache. It has one slot for a token, and slots that guess behind it.
            assistant_confidence_threshold: a guess of less probability ends the draft before it.
            sample: sample the drafted tokens if the request samples.

        Raises:
            RecipeError: the engine has no slots that guess, or the threshold is no probability.
        """
        check_probability(assistant_confidence_threshold=assistant_confidence_threshold)
        if not isinstance(draft.block.topology, GuessTree):
            raise RecipeError(f"engine {draft.name} has no slots for guesses; compile the bundle again")
        self.engine, self.threshold, self.sample = draft, assistant_confidence_threshold, sample

    def open(self, seq: Sequence) -> MaskTokensDrafting:
        return MaskTokensDrafting(self, seq)


class MaskTokensDrafting(Drafting[MaskTokens]):
    """The drafts of one request."""

    def propose(self, room: int) -> Proposal:
        drafter, seq, sampling = self.drafter, self.seq, self.seq.sampling
        engine = drafter.engine
        sample = drafter.sample and not sampling.greedy
        draws: dict[int, Draws] = {}
        room = min(room, engine.slots, seq.cache.store.capacity - len(seq.tokens) - engine.slots)
        tokens = [seq.pending]
        if room < 1:
            return Draft.chain(tokens)
        outputs = yield Call(engine, seq.cache, 0, (seq.pending,), ONE_SLOT)
        for slot in range(room):
            if outputs.best_probability(slot) < drafter.threshold:
                break
            if sample:
                assert outputs.logits_NV is not None
                rng = sampling.rng.at(len(seq.tokens) + slot, Use.DRAFT)
                draws[slot] = sampling.draws(outputs.logits_NV[slot], rng)
                tokens.append(draws[slot].pick())
            else:
                tokens.append(outputs.ids_N[slot])
        return Draft.chain(tokens, DrawnProbs(draws))
