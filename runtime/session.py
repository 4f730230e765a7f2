"""The decoding loop, and the session that runs requests through it."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping
from threading import RLock
from typing import Any, Unpack

from .acceptance import Acceptance
from .bundle import Bundle
from .call import Call
from .chat import ChatOptions
from .checked_files import check_once
from .device import CPU, Device
from .draft import Accepted, Draft, Verified
from .drafters import Drafter
from .engine import Engine, narrowest
from .engines import Engines
from .engines.memory import trim
from .errors import PromptError
from .guard import Guard
from .method import RunnableMethod, load_method
from .recipe import Recipe
from .request import RequestOptions
from .rng import SeededRng
from .sampling import Sampling
from .sampling_defaults import SamplingDefaults
from .sequence import Cache, Released, Sequence
from .stats import Meter, Stats
from .stream import Ending, Generation, Stream, one_or_several, token_limit
from .text import Prompt, Text
from .tree import Tree
from .width_invariance import is_near, one_width


def decode(
    seq: Sequence, drafter: Drafter, verifiers: Collection[Engine], accept: Acceptance
) -> Iterator[tuple[Draft, Accepted]]:
    """Decode step by step, without end: propose a draft, verify it in one run of the target, commit what is accepted.

    Args:
        seq: the text and its cache. Each step appends to it.
        drafter: the source of drafts.
        verifiers: the target's engines, narrowest first. The first one that a draft fits runs it.
        accept: the acceptance rule.

    Raises:
        RecipeError: a draft fits none of the engines.
    """
    while True:
        draft = drafter.propose(seq)
        verify = narrowest(verifiers, draft.tree)
        outputs = Call(verify, seq.cache, 0, draft.tokens, draft.tree).run()
        verified = Verified(outputs, seq.sampling, draft.tree, len(seq.tokens))
        accepted = accept(draft, verified)
        seq.append(draft, accepted)
        drafter.observe(seq, draft, verified, accepted)
        yield draft, accepted


class Session:
    """One conversation over a bundle's engines. Rows that a new prompt shares with the last text are not run again.

    A session is a context manager, which closes it at the end.

    Threads may share a session. One waits until the answer of another's `generate` is whole, or its step of a `stream`.
    A request between two steps of a stream ends that stream by a PromptError.
    """

    def __init__(self, bundle: Bundle, device: Device = CPU) -> None:
        """Check the bundle and make its caches. Engines are loaded by the first request that needs them.

        Args:
            bundle: the bundle.
            device: where the engines run.

        Raises:
            BundleError: a file was altered.
            BackendError: no backend of the bundle runs on the device, or the caches do not fit.
        """
        self.bundle = bundle
        self.engines = Engines(bundle, device, check_once(bundle))
        self.text = Text(bundle)
        self.cache = Cache(self.engines.store("target"))
        self.drafters: dict[tuple[str, bool], Guard] = {}  # By RunnableMethod.key.
        self._current: Sequence | None = None  # The request that the cache belongs to.
        self._width = ""  # The engine that computed all rows of the cache, if the last request was exact.
        self._lock = RLock()  # Held while the engines and the cache are used.

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the engines and the caches. Later requests, and streams that have not ended, raise a SpeccError."""
        with self._lock:
            self.engines.close()
            self.drafters.clear()
            self.cache = Cache(Released())
            self._current = None
            trim()  # Engines are freed in many parts, which malloc would keep.

    def generate(
        self, prompt: Prompt, max_new_tokens: int | None = 128, **options: Unpack[RequestOptions]
    ) -> Generation:
        """Decode to the end.

        Args:
            prompt: text, token ids, or messages for the model's chat template.
            max_new_tokens: tokens of the answer at most; the context may have room for fewer. None fills the context.
            options: those of `stream`, which describes them.

        Raises:
            PromptError: the prompt or an option is out of range.
            RecipeError: the recipe or the rule does not exist, or the two do not go together.
        """
        return self.stream(prompt, max_new_tokens, **options).rest()

    def stream(
        self,
        prompt: Prompt,
        max_new_tokens: int | None = 128,
        *,
        recipe: str | None = None,
        acceptance: str | Acceptance | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        top_k: int | None = None,
        seed: int | None = None,
        stop: str | Collection[str] | None = (),
        stop_token_ids: int | Collection[int] | None = (),
        ignore_eos: bool = False,
        guard: bool = True,
        exact: bool | str = False,
        tools: Collection[Mapping[str, Any]] | None = None,
        documents: Collection[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool | None = None,
        continue_final_message: bool | str = False,
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ) -> Stream:
        """Return an iterator over pieces of the answer's text. It also has the tokens, the finish reason and the stats.

        Args:
            prompt: text, token ids, or messages for the model's chat template.
            max_new_tokens: tokens of the answer at most; the context may have room for fewer. None fills the context.
            recipe: a recipe of the bundle; None is the bundle's default, "plain" decodes without speculation.
            acceptance: a rule or its name; None is the recipe's own rule.
            temperature: 0 is greedy, 1 the model's own distribution. None is what the model's `generation_config.json`
                asks for, and greedy if that does not ask for sampling; so are `top_p` and `top_k`.
            top_p: sample from the smallest set of tokens with this probability; 1 cuts nothing.
            top_k: sample from the k likeliest tokens; 0 cuts nothing.
            seed: makes sampling repeatable; None draws one.
            stop: one string that ends the text, or several. The text does not contain it.
            stop_token_ids: tokens that end the text.
            ignore_eos: go on after an end-of-sequence token.
            guard: cut drafts short, or stop them for a while, when they do not pay. The guard goes by the clock, so it
                works only where the tokens do not depend on the drafts: with a rule that keeps the target's tokens
                (match, and every lossless rule at temperature 0), over a target that is exact at every width.
            exact: run every step through one engine: the prompt, plain steps and verify. So the tokens are those of
                plain decoding through that engine, for weights of any type. It costs speed. The engine is the widest
                one of the recipe; for the recipe "plain" that of the recipe that `exact` names, or of the default.
            tools: for a chat template, JSON schemas of functions that the model may call.
            documents: for a chat template, dicts with `title` and `text`.
            add_generation_prompt: end messages with the header of an answer; None does unless a message is continued.
            continue_final_message: continue the last message, instead of answering it. A string names its field.
            chat_template_kwargs: further variables of the chat template.

        Raises:
            PromptError: the prompt or a sampling parameter is out of range.
            RecipeError: the recipe or the rule does not exist, or the two do not go together.
            SpeccError: the session is closed.
        """
        self.engines.check_open()
        method = load_method(self.bundle.recipe(recipe), acceptance)
        chat = ChatOptions(
            tools=tools,
            documents=documents,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=continue_final_message,
            template_kwargs=chat_template_kwargs or {},
        )
        model = self.bundle.manifest.model
        tokens = self.text.encode(prompt, chat, model.context)
        model.check(tokens)
        limit = token_limit(max_new_tokens, model.context - len(tokens))
        ending = Ending(
            max_new_tokens=limit,
            eos=() if ignore_eos else model.eos_token_ids,
            stop=one_or_several(stop, str, "stop"),
            stop_token_ids=one_or_several(stop_token_ids, int, "stop_token_ids"),
        )
        values = SamplingDefaults(model.generation_config).resolve(temperature, top_p, top_k)
        sampling = Sampling(**values, rng=SeededRng(seed))
        seq = Sequence(tokens, self.cache, sampling, len(tokens) + limit)
        manifest, backend, width = self.bundle.manifest, self.engines.backend, ""
        if exact:
            source = self.bundle.recipe(exact).name if isinstance(exact, str) else ""
            width = one_width(manifest, method.recipe, backend, source)
        near = not width and is_near(manifest, method.recipe, backend)
        stats = Stats(recipe=method.recipe.name, lossless=method.lossless and not near)
        guard = guard and method.keeps_tokens(sampling) and not near
        with self._lock:
            steps = self._decode(seq, self.guarded_drafter(method), method, stats, guard, width)
        return Stream(steps, self.text, stats, ending, tuple(tokens), self._lock)

    def guarded_drafter(self, method: RunnableMethod) -> Guard:
        """Return a method's drafter under its guard. Both last as long as the session, with what they learned."""
        self.engines.load(*method.recipe.engine_names)
        if method.key not in self.drafters:
            engines = {role: self.engines[name] for role, name in method.recipe.engines.items()}
            self.drafters[method.key] = Guard(method.make_drafter(engines))
        return self.drafters[method.key]

    def release(self, recipe: Recipe, keep: Recipe) -> None:
        """Unload what `recipe` uses and `keep` does not, drafters and engines. They load again on demand."""
        self.drafters = {key: drafter for key, drafter in self.drafters.items() if key[0] != recipe.name}
        self.engines.release(*set(recipe.engine_names).difference(keep.engine_names))

    def _decode(
        self, seq: Sequence, guard: Guard, method: RunnableMethod, stats: Stats, guarded: bool, width: str
    ) -> Iterator[list[int]]:
        """Yield the new tokens of each step, and count them in `stats`. `width` names the only engine, or is empty."""
        verifiers = [self.engines[name] for name in method.recipe.verify]
        drafts = [self.engines[name] for name in method.recipe.engines.values()]
        drafter: Drafter = guard.drafter
        if guarded and verifiers[-1].slots > 1:
            drafter, stats.guard = guard, guard.begin()
            if verifiers[0].slots > 1:
                verifiers.insert(0, self.engines.prefill(1))  # For the guard's plain steps.
        if width:
            verifiers = [self.engines[width]]
        if width != self._width:
            seq.cache.sync([])  # Rows by engines of other widths have other last bits.
            self._width = width
        stats.prompt_tokens = len(seq.tokens)
        self._current = seq
        self._prefill(seq, stats, width)
        yield seq.tokens[-1:]
        steps, meter = decode(seq, drafter, verifiers, method.accept), Meter(stats, verifiers, drafts)
        while seq is self._current:
            meter.start()
            draft, accepted = next(steps)
            meter.stop(draft, accepted)
            yield seq.tokens[-len(accepted.slots) :]
        self.engines.check_open()
        raise PromptError("a later request took this session's cache; give each its own session: specc.load(bundle)")

    def _prefill(self, seq: Sequence, stats: Stats, width: str) -> None:
        """Run the tokens of the prompt that have no row, and choose the first new token."""
        feed = seq.cache.sync(seq.tokens[:-1]) + seq.tokens[-1:]
        engine = self.engines[width] if width else self.engines.prefill(len(feed))
        start = time.perf_counter()
        row = engine.extend(seq.cache, feed)
        last = Verified(engine.outputs, seq.sampling, Tree.chain(row + 1), len(seq.tokens) - row)
        seq.tokens.append(last.choose(row))
        stats.prefill_seconds = time.perf_counter() - start
