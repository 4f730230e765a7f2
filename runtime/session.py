"""A session: one conversation with a model."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Collection, Mapping
from collections.abc import Sequence as Items
from threading import RLock
from typing import Any, Unpack

from .acceptance import Acceptance
from .bundle import Bundle
from .call import finish
from .chat import ChatOptions
from .decoder import Decoder
from .device import CPU, Device
from .drafters import MOST_TOKENS, Drafter, Drafting, Suggestion
from .errors import BackendError, PromptError, RecipeError, SpeccError, SpeccWarning
from .forced_tokens import ForcedTokens
from .lanes import Lane
from .loop import Decoding
from .manifest_checks import check_logits
from .method import RunnableMethod, load_method
from .processors.options import ProcessorOptions
from .request import RequestOptions, check_flags, check_names
from .rng import SeededRng
from .sampling import Sampling
from .sampling_defaults import SamplingDefaults
from .sequence import TARGET, Cache, Sequence
from .shared import Shared, UsesShared
from .stats import Stats
from .stream import Ending, Generation, Stream, one_or_several, token_limit
from .text import Prompt
from .width_invariance import is_near, one_width


class Session(UsesShared):
    """One conversation with a model. Rows that a new prompt shares with the last text are not run again.

    Threads may share a session. One waits until the answer of another's `generate` is whole, or its step of a `stream`.
    A request between two steps of a stream ends that stream by a PromptError. Requests of different sessions of one
    model do not disturb each other: they take turns, step by step.

    Attributes:
        shared: what the sessions of a model share.
        lane: the caches of the conversation. If the machine has no room for more, sessions share those of lane 0.
    """

    def __init__(self, shared: Shared, lane: Lane | None = None, *, together: bool = False) -> None:
        """Begin a conversation.

        Args:
            shared: what the sessions of a model share.
            lane: caches to use, which stay those of the caller; None takes some that nobody uses.
            together: whether requests run together with others. Then who runs them limits drafts, and no guard does.

        Raises:
            SpeccError: the model is closed.
        """
        self.shared, self._together = shared, together
        self._current: Stats | None = None  # Those of the last request, to which the conversation belongs.
        self._lock = RLock()  # Held while a request of this session runs.
        self._closed = False
        self._give_back: Callable[[], object] = bool  # Does nothing.
        if lane is None:
            try:
                lane = shared.lanes.take()
                self._give_back = weakref.finalize(self, shared.lanes.give_back, lane)
            except BackendError:
                lane = shared.lanes.first
        self.lane = lane

    def close(self) -> None:
        """End the conversation. Its caches serve others. Streams that have not ended raise a SpeccError."""
        with self._lock:
            self._closed, self._current = True, None
            self._give_back()

    @property
    def cache(self) -> Cache:
        """The rows of the target for this conversation."""
        return self.lane.caches[TARGET]

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
        check_names("Session.generate", options)
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
        min_p: float | None = None,
        seed: int | None = None,
        repetition_penalty: float | None = None,
        frequency_penalty: float | None = None,
        presence_penalty: float | None = None,
        logit_bias: Mapping[int, float] | None = None,
        bad_words: str | Collection[str | Items[int]] | None = None,
        min_new_tokens: int | None = None,
        logprobs: int | None = None,
        json_schema: str | Mapping[str, Any] | None = None,
        regex: str | None = None,
        lark: str | None = None,
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
                asks for, and greedy if that does not ask for sampling. `top_p`, `top_k`, `min_p`, `repetition_penalty`,
                `bad_words` and `min_new_tokens` take its values too where they are None.
            top_p: sample from the smallest set of tokens with this probability; 1 cuts nothing.
            top_k: sample from the k likeliest tokens; 0 cuts nothing.
            min_p: sample from the tokens that have at least this share of the likeliest one's probability.
            seed: makes sampling repeatable; None draws one.
            repetition_penalty: above 1 makes tokens of the prompt and the answer less likely; 1 changes nothing.
            frequency_penalty: a token's logit loses this for each time that the answer has it, -2 to 2.
            presence_penalty: a token's logit loses this if the answer has it, -2 to 2.
            logit_bias: a number from -100 to 100 by token id, which is added to the token's logit.
            bad_words: words, or lists of token ids, that the answer does not contain. A word is forbidden as the
                tokenizer writes it, with and without a space in front.
            min_new_tokens: tokens that the answer has before an end-of-sequence or stop token is allowed.
            logprobs: keep the log-probability of each token, and of so many of the likeliest ones at its place.
            json_schema: a JSON schema that the answer follows, as a dict or as text; needs llguidance.
            regex: a regular expression, in Rust's syntax, that the whole answer matches; needs llguidance.
            lark: a grammar in llguidance's dialect of Lark that the answer follows; needs llguidance.
            stop: one string that ends the text, or several: at most 1000, with 100,000 characters in all. The text does
                not contain it.
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
            PromptError: the prompt or an option is out of range, or a grammar is refused.
            RecipeError: the recipe or the rule does not exist, or the two do not go together.
            SpeccError: the model or the session is closed.
        """
        self._check_open()
        check_flags(ignore_eos=ignore_eos, guard=guard, exact=exact if not isinstance(exact, str) else True)
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
        ending.check_stop_tokens(model.vocab_size)
        defaults = SamplingDefaults(model.generation_config)
        sampling = Sampling(
            **defaults.sampling(temperature=temperature, top_p=top_p, top_k=top_k, min_p=min_p), rng=SeededRng(seed)
        )
        processors = ProcessorOptions(
            **defaults.processors(
                repetition_penalty=repetition_penalty, bad_words=bad_words, min_new_tokens=min_new_tokens
            ),
            frequency_penalty=frequency_penalty,
            presence_penalty=presence_penalty,
            logit_bias=logit_bias,
            logprobs=logprobs,
            json_schema=json_schema,
            regex=regex,
            lark=lark,
        )
        processing = processors.make(tokens, self.text, model, (*ending.eos, *ending.stop_token_ids))
        method.check_engines([self.bundle.engine(name).block for name in method.recipe.verify], sampling)
        if processing and processing.processors and not method.accept.obeys_processors:
            raise PromptError(
                f"acceptance {method.accept.__name__} accepts tokens that a grammar or a penalty forbids; "
                "use match, or leave these options out"
            )
        if method.is_idle(sampling):
            rule = method.accept.__name__
            text = f"acceptance {rule} is match at temperature 0, which is lossless; it works only above temperature 0"
            warnings.warn(text, SpeccWarning, stacklevel=2)
        if processing or not sampling.greedy:
            check_logits(self.bundle.manifest, method.recipe)
        seq = Sequence(tokens, self.lane.caches, sampling, len(tokens) + limit, processing)
        manifest, backend, exact_engine = self.bundle.manifest, self.engines.backend, ""
        if exact:
            source = self.bundle.recipe(exact).name if isinstance(exact, str) else ""
            exact_engine = one_width(manifest, method.recipe, backend, source)
        near = not exact_engine and is_near(manifest, method.recipe, backend)
        rounded = any(s.block.quantized_group for s in manifest.engines if s.name in method.recipe.verify)
        stats = Stats(recipe=method.recipe.name, lossless=method.is_lossless(sampling) and not (near or rounded))
        guard = guard and method.keeps_tokens(sampling) and not near
        recorder = processing.logprobs if processing else None
        decoding = self._prepare(seq, method, stats, guard, exact_engine)
        decoder = Decoder(self.shared, decoding, method, exact_engine, self._lane_for, limited=guard)
        return Stream(decoder, self.text, stats, ending, tuple(tokens), self._lock, recorder)

    def suggest(self, prompt: Prompt, max_new_tokens: int = 10, *, recipe: str | None = None) -> list[Suggestion]:
        """Return several texts that may follow a prompt, likeliest first, each from one pass for all of them. Lossy.

        Args:
            prompt: text, token ids, or messages for the model's chat template.
            max_new_tokens: tokens of a text at most. The scratch rows of the caches have room for about 120.
            recipe: a recipe that suggests, such as superposed; None is the first one that the bundle has.

        Raises:
            PromptError: the prompt or the number of tokens is out of range.
            RecipeError: the recipe gives one answer only, or the bundle has none that gives several.
        """
        self._check_open()
        model = self.bundle.manifest.model
        tokens = self.text.encode(prompt, ChatOptions(), model.context)
        model.check(tokens)
        count = token_limit(max_new_tokens, MOST_TOKENS)
        if count < 1:
            raise PromptError(f"max_new_tokens is {max_new_tokens}; give 1 or more")
        drafter = self._suggesting(recipe)
        with self._lock, self.shared.lock:
            self._current = None  # No stream that is under way may go on with these rows.
            seq = Sequence(tokens, self.lane.caches)
            self.lane.claim(seq, "")
            feed = seq.cache.sync(tokens[:-1])
            self.engines.prefill(len(feed)).extend(seq.cache, feed)
            return finish(drafter.open(seq).suggest(count))

    def _suggesting(self, recipe: str | None) -> Drafter:
        """Return the drafter of a recipe that suggests. Raises RecipeError if it does not, or if there is none."""
        names = [r.name for r in self.bundle.manifest.recipes] if recipe is None else [recipe]
        for name in names:
            method = load_method(self.bundle.recipe(name))
            if method.drafter.suggests:
                with self.shared.lock:
                    return self.shared.guarded_drafter(method).drafter
        raise RecipeError(
            f"recipe {recipe} gives one answer; leave it out"
            if recipe
            else "no recipe of this bundle gives several suggestions; compile it with --recipe superposed --corpus DIR"
        )

    def _check_open(self) -> None:
        """Raise a SpeccError if the model or the session is closed."""
        self.engines.check_open()
        if self._closed:
            raise SpeccError("this session is closed; open another with model.session()")

    def _prepare(
        self, seq: Sequence, method: RunnableMethod, stats: Stats, guarded: bool, exact_engine: str
    ) -> Decoding:
        """Load what a request needs, and return it as the loop takes it. An exact one has one engine, named here."""
        with self.shared.lock:
            guard = self.shared.guarded_drafter(method)
            verifiers = [self.engines[name] for name in method.recipe.verify]
            drafting: Drafting[Any]
            if guarded and not self._together and verifiers[-1].slots > 1:
                under_guard = guard.open(seq)
                stats.guard, drafting = under_guard.counts, under_guard
            else:
                drafting = guard.drafter.open(seq)
            if guarded and verifiers[0].slots > 1:
                verifiers.insert(0, self.engines.prefill(1))  # For steps without a draft.
            if exact_engine:
                verifiers = [self.engines[exact_engine]]
        looks_ahead = seq.processing is not None and seq.processing.looks_ahead
        if looks_ahead and verifiers[-1].slots > 1 and not method.accept.needs_draft_logits:
            drafting = ForcedTokens(drafting, verifiers, method.accept.needs_draft_probs)
        stats.prompt_tokens = len(seq.tokens)
        return Decoding(
            seq=seq,
            drafting=drafting,
            verifiers=verifiers,
            accept=method.accept,
            stats=stats,
            one_width=bool(exact_engine),
        )

    def _lane_for(self, decoder: Decoder) -> Lane:
        """Return the lane for the next step of a request. The first step of a request ends the one before.

        Raises:
            PromptError: a later request has the conversation.
            SpeccError: the model or the session was closed.
        """
        if self._closed or self.engines.closed:
            self._check_open()
        if not decoder.started:
            self._current = decoder.decoding.stats
        if self._current is not decoder.decoding.stats:
            raise PromptError("a later request took this session's cache; give each its own session: model.session()")
        return self.lane


def open_session(bundle: Bundle, device: Device = CPU) -> Session:
    """Load a bundle for one conversation.

    Raises:
        BundleError: a file was altered.
        BackendError: no backend of the bundle runs on the device, or the caches do not fit.
    """
    return Session(Shared(bundle, device))
