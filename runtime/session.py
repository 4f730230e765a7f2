"""The loop: propose, verify, accept, commit."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator
from typing import Any

from .acceptance import Acceptance
from .bundle import Bundle
from .device import CPU, Device
from .draft import Accepted, Draft, Verified
from .drafters import Drafter
from .engine import Engine
from .engines import Engines
from .errors import PromptError, RecipeError
from .guard import Guard
from .recipe import Recipe, load_method
from .sampling import Sampling, SeededRng
from .sequence import Cache, Sequence
from .stats import Stats, spent
from .stream import Generation, Stream
from .text import Prompt, Text


def decode(
    seq: Sequence, drafter: Drafter, verifiers: Iterable[Engine], accept: Acceptance
) -> Iterator[tuple[Draft, Accepted]]:
    """Steps without end; the narrowest of `verifiers` that holds a draft runs it. Raises RecipeError if none does."""
    while True:
        draft = drafter.propose(seq)
        verify = next((e for e in verifiers if e.block.fits(draft.tree)), None)
        if verify is None:
            raise RecipeError(
                f"a draft has {draft.tree.slots} slots, and the recipe's engines hold none of that shape, only "
                f"{', '.join(e.name for e in verifiers)}; give it shorter drafts, or compile again"
            )
        verified = Verified(verify.run(seq.cache, draft.tokens, draft.tree), seq.sampling)
        accepted = accept(draft, verified)
        verify.commit(seq.cache, accepted.slots)
        seq.tokens += [*(draft.tokens[s] for s in accepted.slots[1:]), accepted.token]
        drafter.observe(seq, draft, verified, accepted)
        yield draft, accepted


class Session:
    """One conversation over a bundle's engines. Rows of a prompt's beginning that the cache holds are not run again."""

    def __init__(self, bundle: Bundle, place: Device = CPU) -> None:
        bundle.check_once()
        self.bundle = bundle
        self.engines = Engines(bundle, place)
        self.text = Text(bundle.path)
        self.cache = Cache(self.engines.store("target"))
        self.drafters: dict[tuple[str, bool], Guard] = {}  # by recipe and whether they sample, each under its guard
        self.latest: Sequence | None = None  # the request that the rows belong to

    def generate(self, prompt: Prompt, max_new_tokens: int = 128, **options: Any) -> Generation:
        """Decode to the end; the options are those of `stream`."""
        return self.stream(prompt, max_new_tokens, **options).rest()

    def stream(
        self,
        prompt: Prompt,
        max_new_tokens: int = 128,
        *,
        recipe: str | None = None,
        acceptance: str | Acceptance | None = None,
        temperature: float = 0.0,
        top_p: float = 1.0,
        top_k: int = 0,
        seed: int | None = None,
        stop: str | Collection[str] = (),
        ignore_eos: bool = False,
        guard: bool = True,
    ) -> Stream:
        """An iterator over pieces of text, which knows `token_ids`, `finish_reason` and `stats` when it ends.

        recipe: None is the bundle's default, "plain" decodes without speculation.
        acceptance: a rule or its name, None being the recipe's own; speculative and recursive are for recipes whose
        drafter samples.
        stop: a string that ends the text, itself left out, or several. seed: None draws one.
        guard: stop drafting for a while where it does not pay.
        Raises PromptError, RecipeError.
        """
        chosen = self.bundle.recipe(recipe)
        make, accept, sample = load_method(chosen, acceptance)
        sampling = Sampling(temperature, top_p, top_k, SeededRng(seed))
        tokens = self.text.encode(prompt)
        self.bundle.manifest.model.check(tokens)
        if max_new_tokens < 1:
            raise PromptError(f"max_new_tokens {max_new_tokens} is below 1")
        stops = (stop,) if isinstance(stop, str) else tuple(stop)
        if "" in stops:
            raise PromptError("a stop string is empty; leave it out")
        watched = self._watched(chosen, make, sample)
        stats = Stats(chosen.name, chosen.lossless)
        if guard and self.engines[chosen.verify[-1]].slots > 1:
            stats.guard = watched.begin()
        most = min(max_new_tokens, self.bundle.manifest.model.context - len(tokens))
        seq = Sequence(tokens, self.cache, sampling, len(tokens) + most)
        steps = self._decode(seq, stats.guard or watched.drafter, accept, chosen, stats)
        eos = () if ignore_eos else self.bundle.manifest.model.eos_token_ids
        return Stream(steps, self.text, stats, most, eos, stops)

    def release(self, recipe: Recipe, but: Recipe) -> None:
        """Unload what this recipe uses and `but` does not: drafters and engines. They load again when asked for."""
        self.drafters = {key: kept for key, kept in self.drafters.items() if key[0] != recipe.name}
        used = {*recipe.verify, *recipe.engines.values()} - {*but.verify, *but.engines.values()}
        self.engines.release(*used)

    def _decode(
        self, seq: Sequence, drafter: Drafter, accept: Acceptance, recipe: Recipe, stats: Stats
    ) -> Iterator[list[int]]:
        """Runs of one or more tokens, for as long as they are asked for."""
        verifiers = [self.engines[name] for name in recipe.verify]
        if stats.guard and verifiers[0].slots > 1:
            verifiers.insert(0, self.engines.prefill(1))
        drafts = [self.engines[name] for name in recipe.engines.values()]
        stats.prompt_tokens = len(seq.tokens)
        self.latest = seq
        self._prefill(seq, stats)
        yield seq.tokens[-1:]
        self._check_turn(seq)
        before = spent(verifiers, drafts)
        for draft, accepted in decode(seq, drafter, verifiers, accept):
            stats.count(draft, accepted)
            after = spent(verifiers, drafts)
            stats.step(before, after)
            yield seq.tokens[-len(accepted.slots) :]
            self._check_turn(seq)
            before = (*after[:2], time.perf_counter())  # the clock went on, the engines did not

    def _prefill(self, seq: Sequence, stats: Stats) -> None:
        """Run what the cache lacks of the prompt; choose the first token."""
        feed = seq.cache.sync(seq.tokens[:-1]) + seq.tokens[-1:]
        engine = self.engines.prefill(len(feed))
        start = time.perf_counter()
        row = engine.extend(seq.cache, feed)
        seq.tokens.append(Verified(engine.outputs, seq.sampling).choose(row))
        stats.prefill_seconds = time.perf_counter() - start

    def _check_turn(self, seq: Sequence) -> None:
        """Whether the rows are still this request's. Raises PromptError."""
        if seq is not self.latest:
            raise PromptError("a later request has taken this session's rows; give each its own: specc.load(bundle)")

    def _watched(self, recipe: Recipe, make: Any, sample: bool) -> Guard:
        """The recipe's drafter under its guard, kept for the session so that what they learn lasts."""
        self.engines.load(*recipe.verify, *recipe.engines.values())
        if (recipe.name, sample) not in self.drafters:
            engines = {role: self.engines[name] for role, name in recipe.engines.items()}
            drafter = make(**engines, **recipe.parameters, **({"sample": True} if sample else {}))
            self.drafters[recipe.name, sample] = Guard(drafter)
        return self.drafters[recipe.name, sample]
