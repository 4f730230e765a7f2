"""A scheduler over toys: submitted requests, and threads that submit and cancel at random."""

from __future__ import annotations

import faulthandler
import math
import random
import time
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from threading import Event, Thread
from typing import Any

import pytest
from chance import chi_square_rejects, distribution
from doubles.requests import PROMPT, PROMPTS, stalled
from doubles.toy_bundle import CONTEXT, VOCABULARY, Slow, ToyBackend
from thorough import sample, slow
from toys import Toy, World

from specc.runtime.acceptance import rule
from specc.runtime.draft import Accepted, Draft, Outputs, Verified
from specc.runtime.errors import (
    BackendError,
    BundleError,
    BusyError,
    PromptError,
    RecipeError,
    SpeccError,
    SpeccWarning,
)
from specc.runtime.handle import Handle
from specc.runtime.lane_calls import LanesEngine
from specc.runtime.lanes import ReusePolicy
from specc.runtime.model import Model
from specc.runtime.prices import Prices
from specc.runtime.sampling import Sampling
from specc.runtime.scheduler import Scheduler, SchedulerPolicy
from specc.runtime.sequence import Cache

THREADS = 16
EOS = VOCABULARY - 1  # The answer to PROMPT does not have it.


def recipes_of(model: Model) -> list[str]:
    """Return the names of the model's recipes."""
    return [recipe.name for recipe in model.bundle.manifest.recipes]


@pytest.mark.parametrize("policy", sample(["price", "bass"], 1))
@pytest.mark.parametrize(("caches", "together"), [(True, True), (True, False), (False, False), (False, True)])
def test_submitted_requests_get_the_answers_that_they_would_get_alone(
    load: Callable[..., Model], backend: ToyBackend, caches: bool, together: bool, policy: str
) -> None:
    """By every recipe, greedy and sampled, all at once."""
    backend.lanes, backend.together = caches, together
    toy_model = load(widths=policy)
    options: list[dict[str, Any]] = [
        {"recipe": recipe, "ignore_eos": True, "temperature": temperature, "seed": number}
        for number, recipe in enumerate(recipes_of(toy_model))
        for temperature in (0.0, 0.9)
    ]
    prompts = [PROMPTS[number % len(PROMPTS)] for number in range(len(options))]
    expected = [toy_model.generate(p, 30, **o, guard=False) for p, o in zip(prompts, options, strict=True)]
    handles = [toy_model.submit(p, 30, **o) for p, o in zip(prompts, options, strict=True)]
    for handle, alone in zip(handles, expected, strict=True):
        answer = handle.result(60)
        assert (answer.token_ids, answer.text) == (alone.token_ids, alone.text)
        assert (handle.finish_reason, answer.finish_reason) == ("length", "length")
        assert handle.token_ids == answer.token_ids and handle.prompt_tokens == answer.stats.prompt_tokens


@pytest.mark.slow
def test_bass_samples_of_each_row_of_a_batch_have_the_distribution_of_the_target(
    load: Callable[..., Model], backend: ToyBackend
) -> None:
    """The test of BASS: min(1, p / q) in each row, while the length of drafts follows the best row of the batch."""
    backend.together = True
    model = load(widths="bass", running=8, waiting=1000)
    options: dict[str, Any] = {"temperature": 1.0, "top_k": 3, "ignore_eos": True}
    rows = [
        model.submit(PROMPT, 3, recipe="layer-skip", acceptance="speculative", seed=seed, **options)
        for seed in range(900)
    ]
    answers = [row.result(300) for row in rows]
    assert sum(answer.stats.accepted for answer in answers) > 100
    plain = World(VOCABULARY).method("plain")
    prompt = model.conversation.text.encode(PROMPT)
    exact = distribution(lambda rng: tuple(plain.run(prompt, 3, Sampling(1.0, top_k=3, rng=rng))[0]))
    assert not chi_square_rejects(Counter(tuple(answer.token_ids) for answer in answers), exact)


def test_a_step_of_all_requests_is_one_run(load: Callable[..., Model], backend: ToyBackend) -> None:
    """Of more requests than lanes, the others run at the same time in a second run, or alone."""
    backend.together = True
    model = load(pieces=1000)
    handles = [model.submit(prompt, 20, recipe="plain", ignore_eos=True) for prompt in PROMPTS[:3]]
    for handle in handles:
        handle.result(60)
    assert backend.runner is not None
    assert Counter(sum(width > 0 for width in widths) for widths in backend.runner.runs[-15:])[3] >= 10


def test_a_long_prompt_does_not_stop_the_others(load: Callable[..., Model], backend: ToyBackend) -> None:
    """A step has a few of its tokens beside those of the requests that decode."""
    backend.together, backend.model = True, Slow
    model = load(pieces=1000, prompt_tokens=5)
    first = model.submit(PROMPT, 60, recipe="plain", ignore_eos=True)
    next(first)
    prompt = [1] * 90
    second = model.submit(prompt, 5, recipe="plain", ignore_eos=True)
    assert second.result(60).token_ids == model.generate(prompt, 5, recipe="plain", ignore_eos=True).token_ids
    assert len(first.token_ids) >= 90 // 5
    assert backend.runner is not None
    chunks = [widths for widths in backend.runner.runs if max(widths) > 4 and sum(width > 0 for width in widths) == 2]
    assert {max(widths) for widths in chunks} == {5} and len(chunks) >= 10


def test_requests_of_high_priority_begin_first(load: Callable[..., Model], backend: ToyBackend) -> None:
    backend.model = Slow
    model = load(running=1)
    first = model.submit(PROMPT, 40, ignore_eos=True)
    next(first)
    low, high = (model.submit(PROMPT, 5, priority=priority, ignore_eos=True) for priority in (0, 1))
    next(high)
    assert low.token_ids == []
    assert [len(handle.result(60).token_ids) for handle in (first, low, high)] == [40, 5, 5]


@pytest.mark.parametrize("together", [True, False])
def test_a_request_is_cancelled_at_its_deadline(
    load: Callable[..., Model], backend: ToyBackend, together: bool
) -> None:
    """While it runs, waits, or pauses; one that ends before stays whole."""
    backend.model, backend.together = Slow, together
    model = load(running=1, pieces=2)
    short = model.submit(PROMPT, 2, deadline=60, ignore_eos=True)
    paused, waiting = (model.submit(PROMPT, 200, deadline=0.2, ignore_eos=True) for _ in range(2))
    limit = time.monotonic() + 30
    while None in (paused.finish_reason, waiting.finish_reason):
        assert time.monotonic() < limit, "a request goes on"
        time.sleep(0.01)
    running = model.submit(PROMPT, 200, deadline=0.1, ignore_eos=True).result(60)
    assert (short.result(60).finish_reason, len(short.token_ids)) == ("length", 2)
    assert [paused.finish_reason, waiting.finish_reason, running.finish_reason] == ["cancelled"] * 3
    assert 0 < len(running.token_ids) < 200


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("running", 0), ("running", 1.5), ("running", "4"), ("waiting", -1), ("waiting", None), ("pieces", -1),
        ("prompt_tokens", 0), ("prompt_share", math.nan), ("prompt_share", math.inf), ("widths", "luck"),
        ("widths", ["price"]),
    ],
)  # fmt: skip
def test_a_policy_out_of_range_is_refused_at_once(name: str, value: Any) -> None:
    with pytest.raises(SpeccError, match=f"SchedulerPolicy: {name} is .*; (give|choose)"):
        SchedulerPolicy(**{name: value})


@pytest.mark.parametrize(
    "options",
    [{"priority": "hi"}, {"priority": None}, {"priority": 1.5}, {"deadline": math.nan}, {"deadline": "5"},
     {"deadline": True}, {"deadline": -1}, {"deadline": -0.5}, {"deadline": math.inf}, {"recipe": 5}],
)  # fmt: skip
def test_an_option_out_of_range_is_refused_and_disturbs_nobody(toy_model: Model, options: dict[str, Any]) -> None:
    ((name, value),) = options.items()
    with pytest.raises(SpeccError, match=f"{name} is .*{value}.*; give"):
        toy_model.submit(PROMPT, 5, **options)
    assert len(toy_model.submit(PROMPT, 5, ignore_eos=True).result(60).token_ids) == 5


def test_a_time_that_no_clock_reaches_is_no_limit(load: Callable[..., Model]) -> None:
    model = load(pieces=2)
    handles = [model.submit(PROMPT, 40, ignore_eos=True, deadline=end) for end in (1e300, 10**400)]
    for handle in handles:
        stalled(handle)
    assert [len(handle.result(1e300).token_ids) for handle in handles] == [40, 40]


@pytest.mark.parametrize("timeout", [-1, -0.5, math.inf, math.nan])
def test_a_timeout_that_is_negative_or_not_finite_is_refused_by_its_value(toy_model: Model, timeout: float) -> None:
    handle = toy_model.submit(PROMPT, 5, ignore_eos=True)
    with pytest.raises(PromptError, match=f"timeout is {timeout}; give seconds from 0 on, or None to wait for ever"):
        handle.result(timeout)
    assert len(handle.result(60).token_ids) == 5


def test_a_deadline_of_0_seconds_cancels_the_request(toy_model: Model) -> None:
    assert toy_model.submit(PROMPT, 5, deadline=0).result(60).finish_reason == "cancelled"


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("token", [-5, "x"])
def test_a_rule_that_returns_nonsense_ends_its_request_alone(
    load: Callable[..., Model], backend: ToyBackend, together: bool, token: Any
) -> None:
    @rule()
    def nonsense(draft: Draft, verified: Verified) -> Accepted:
        return Accepted((0,), token)

    backend.together = together
    model = load()
    good = model.submit(PROMPT, 30, ignore_eos=True)
    bad = model.submit(PROMPT, 30, acceptance=nonsense, ignore_eos=True)
    with pytest.raises(Exception):  # noqa: B017  the reader gets whatever it was
        bad.result(60)
    assert len(good.result(60).token_ids) == 30


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_defect_of_the_scheduler_ends_all_requests_and_the_next_one_runs(
    load: Callable[..., Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load()
    with monkeypatch.context() as broken:
        broken.setattr(Scheduler, "_run", lambda self, handles: 1 / 0)
        handles = [model.submit(PROMPT, 5) for _ in range(2)]
        for handle in handles:
            with pytest.raises(ZeroDivisionError):
                handle.result(60)
    assert len(model.submit(PROMPT, 5, ignore_eos=True).result(60).token_ids) == 5


@pytest.mark.parametrize("together", [True, False])
def test_requests_that_begin_alike_compute_what_they_share_once(
    load: Callable[..., Model], backend: ToyBackend, monkeypatch: pytest.MonkeyPatch, together: bool
) -> None:
    """Whether they come at once or later, one after another."""
    backend.together = together
    prompts = [[*[5, 7, 9] * 66, 11 + number, 3, 4] for number in range(6)]
    expected = [load().generate(prompt, 20, recipe="plain", ignore_eos=True).token_ids for prompt in prompts]
    rows: list[int] = []
    commit = Cache.commit

    def counted(cache: Cache, tokens: Sequence[int], slots: Sequence[int], outputs: Outputs) -> None:
        rows.append(len(slots))
        commit(cache, tokens, slots, outputs)

    monkeypatch.setattr(Cache, "commit", counted)
    model = load(running=3)
    handles = [model.submit(prompt, 20, recipe="plain", ignore_eos=True) for prompt in prompts]
    assert [handle.result(60).token_ids for handle in handles] == expected
    shared, own, answers = 198, 3, 19  # The last token of an answer has no row.
    again = sum(rows) - shared - 6 * (own + answers)
    assert 0 <= again < 5 * ReusePolicy().min_copied_rows  # Fewer rows than these are computed and not copied.


def test_requests_take_turns(load: Callable[..., Model], backend: ToyBackend) -> None:
    """A short one that comes later ends before a long one; one by one it would not."""
    backend.model = Slow
    model = load(running=2)
    long = model.submit(PROMPT, 200, ignore_eos=True)
    next(long)
    assert model.submit(PROMPTS[0], 5, ignore_eos=True).result(60).stats.new_tokens == 5
    assert long.finish_reason is None and len(long.token_ids) < 200
    assert model.generate(PROMPTS[1], 5, ignore_eos=True).stats.new_tokens == 5
    assert long.finish_reason is None
    assert long.result(60).stats.new_tokens == 200


def test_one_cache_serves_requests_one_after_another(load: Callable[..., Model], backend: ToyBackend) -> None:
    backend.model, backend.lanes = Slow, False
    model = load()
    first, second = (model.submit(prompt, 20, ignore_eos=True) for prompt in PROMPTS[:2])
    next(second)
    assert first.finish_reason == "length"
    assert second.result(60).token_ids == model.generate(PROMPTS[1], 20, ignore_eos=True).token_ids


def test_requests_without_readers_give_their_caches_to_others(load: Callable[..., Model]) -> None:
    """And go on where they were when somebody reads."""
    model = load(running=2, pieces=2)
    options: dict[str, Any] = {"ignore_eos": True, "temperature": 0.9, "seed": 5}
    expected = [model.generate(prompt, 40, **options).text for prompt in PROMPTS[:5]]
    handles = [model.submit(prompt, 40, **options) for prompt in PROMPTS[:5]]
    for handle in handles:
        stalled(handle)
    assert sum(handle.submission.running for handle in handles) == 2
    for handle, text in reversed(list(zip(handles, expected, strict=True))):
        assert "".join(handle) == text


def test_a_request_is_cancelled_while_it_runs_waits_or_pauses(load: Callable[..., Model], backend: ToyBackend) -> None:
    backend.model = Slow
    model = load(running=1)
    running = model.submit(PROMPT, 200, ignore_eos=True)
    waiting = model.submit(PROMPT, 200, ignore_eos=True)
    piece = next(running)
    waiting.cancel()
    assert (waiting.finish_reason, waiting.result().token_ids, list(waiting)) == ("cancelled", [], [])
    running.cancel()
    answer = running.result(10)
    assert answer.finish_reason == "cancelled" and answer.text.startswith(piece) and 0 < len(answer.token_ids) < 200
    running.cancel()
    paused = load(pieces=2).submit(PROMPT, 100, ignore_eos=True)
    stalled(paused)
    paused.cancel()
    assert paused.result(10).finish_reason == "cancelled"
    ended = model.submit(PROMPT, 3, ignore_eos=True)
    ended.result(10)
    ended.cancel()
    assert ended.finish_reason == ended.result().finish_reason == "length"
    with model.submit(PROMPT, 200, ignore_eos=True) as handle:
        next(handle)
    assert handle.result(10).finish_reason == "cancelled" and len(handle.token_ids) < 200


@pytest.mark.parametrize("calls", [1, 2])
def test_a_request_that_is_cancelled_while_its_prompt_is_read_ends_after_the_call_that_runs(
    calls: int, load: Callable[..., Model], backend: ToyBackend
) -> None:
    submitted, runs = Event(), 0

    class Cancelling(Toy):
        """A model whose first run, or whose second one, cancels the request."""

        def run(self) -> None:
            nonlocal runs
            runs += 1
            assert submitted.wait(10)
            if runs == calls:
                handle.cancel()
            super().run()

    backend.model = Cancelling
    handle = load().submit([1] * (CONTEXT - 9), 4, ignore_eos=True)
    submitted.set()
    answer = handle.result(10)
    assert (answer.finish_reason, answer.token_ids, runs) == ("cancelled", [], calls)


@pytest.mark.parametrize("waits_for_text", [True, False])
@pytest.mark.parametrize("together", [True, False])
def test_that_requests_take_turns_is_said_at_the_first_one_that_waits_and_once_for_each_model(
    load: Callable[..., Model], backend: ToyBackend, together: bool, waits_for_text: bool
) -> None:
    """A request waits if another one runs or waits before it. A request that comes alone waits for none."""
    backend.model, backend.together = Slow, together
    for _ in range(2):
        model = load()
        counts: list[int] = []
        with warnings.catch_warnings(record=True) as notes:
            warnings.simplefilter("always")
            model.submit(PROMPT, 1).result(60)
            handles: list[Handle] = []
            for size in (30, 5, 5):
                handles.append(model.submit(PROMPT, size, ignore_eos=True))
                counts.append(len([note for note in notes if "take turns" in str(note.message)]))
                if waits_for_text and size == 30:
                    next(handles[0])
        assert counts == ([0, 0, 0] if together else [0, 1, 1])
        assert [len(handle.result(60).token_ids) for handle in handles] == [30, 5, 5]


@pytest.mark.parametrize(("lanes", "remedy"), [(1, "compile with --lanes 8"), (3, "load the bundle on the CPU")])
def test_the_warning_that_requests_take_turns_names_what_this_bundle_lacks(
    lanes: int, remedy: str, load: Callable[..., Model], backend: ToyBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend.model = Slow
    model = load()
    specs = [spec for spec in model.engines.specs() if spec.block.lanes <= lanes]
    monkeypatch.setattr(model.engines, "specs", lambda: specs)
    first = model.submit(PROMPT, 30, ignore_eos=True)
    with pytest.warns(SpeccWarning, match=f"requests take turns, since .*; {remedy}"):
        model.submit(PROMPT, 5, ignore_eos=True).result(60)
    first.cancel()


def test_a_full_queue_is_an_error_and_nothing_else(load: Callable[..., Model], backend: ToyBackend) -> None:
    backend.model = Slow
    model = load(running=1, waiting=2)
    first = model.submit(PROMPT, 100, ignore_eos=True)
    next(first)
    others = [model.submit(PROMPT, 5, ignore_eos=True) for _ in range(2)]
    with pytest.raises(BusyError, match="3 requests run or wait already; submit again when some have ended"):
        model.submit(PROMPT, 5)
    others.pop().cancel()
    others.append(model.submit(PROMPT, 5, ignore_eos=True))
    assert [len(handle.result(60).token_ids) for handle in (first, *others)] == [100, 5, 5]


@pytest.mark.parametrize("waiting", [0, 2])
def test_an_idle_model_takes_as_many_requests_at_once_as_run_and_wait(
    waiting: int, load: Callable[..., Model], backend: ToyBackend
) -> None:
    """None of them waits for the thread of the model, which has not looked at the queue yet."""
    backend.model = Slow
    model = load(running=2, waiting=waiting)
    with model._scheduler._lock:
        handles = [model.submit(PROMPT, 5, ignore_eos=True) for _ in range(2 + waiting)]
        with pytest.raises(BusyError, match=f"{2 + waiting} requests run or wait already"):
            model.submit(PROMPT, 5)
    assert [len(handle.result(60).token_ids) for handle in handles] == [5] * (2 + waiting)


def test_what_cannot_be_done_is_refused_at_once(toy_model: Model) -> None:
    for options, error in (({"recipe": "telepathy"}, RecipeError), ({"temperature": -1}, PromptError)):
        with pytest.raises(error):
            toy_model.submit(PROMPT, 5, **options)
    with pytest.raises(PromptError, match="empty"):
        toy_model.submit("", 5)


@pytest.mark.parametrize("together", [True, False])
def test_a_request_that_fails_disturbs_no_other(
    load: Callable[..., Model], backend: ToyBackend, together: bool
) -> None:
    class Failing(Slow):
        def run(self) -> None:
            super().run()
            if EOS in self.inputs["input_ids"]:
                raise OSError("the ceiling fell")

    backend.model, backend.together = Failing, together
    model = load()
    good = model.submit(PROMPT, 60, ignore_eos=True)
    bad = model.submit([1, 2, EOS], 60, ignore_eos=True)
    for _ in range(2):
        with pytest.raises(BackendError, match="the ceiling fell"):
            bad.result(60)
    with pytest.raises(BackendError, match="the ceiling fell"):
        list(bad)
    assert bad.finish_reason == "error"
    assert good.result(60).token_ids == model.generate(PROMPT, 60, ignore_eos=True).token_ids


class Shaker:
    """Threads that submit, read, pause and cancel at random. Every answer is checked.

    Attributes:
        counts: how many requests ended how.
        errors: what went wrong.
    """

    options: Mapping[str, Any] = {"ignore_eos": True, "temperature": 0.8, "acceptance": "match"}
    sizes = (1, 7, 30)

    def __init__(self, model: Model) -> None:
        self.model, self.recipes = model, recipes_of(model)
        self.counts, self.errors = Counter[str](), list[BaseException]()
        self.expected = {
            (prompt, seed): model.generate(prompt, max(self.sizes), recipe="plain", seed=seed, **self.options).token_ids
            for prompt in PROMPTS
            for seed in range(2)
        }

    def run(self, seconds: float) -> None:
        """Run all threads for a while, and wait for their last requests."""
        stop = Event()
        rngs = [random.Random(seed) for seed in range(THREADS)]
        threads = [Thread(target=self.work, args=(rng, stop), daemon=True) for rng in rngs]
        faulthandler.dump_traceback_later(seconds + 300)
        for thread in threads:
            thread.start()
        stop.wait(seconds)
        stop.set()
        for thread in threads:
            thread.join(240)
        faulthandler.cancel_dump_traceback_later()
        assert not any(thread.is_alive() for thread in threads)

    def work(self, rng: random.Random, stop: Event) -> None:
        """Submit one request after another."""
        try:
            while not stop.is_set():
                self.counts[self.request(rng)] += 1
        except BaseException as e:
            self.errors.append(e)
            raise

    def request(self, rng: random.Random) -> str:
        """Submit a request, read it in one of several ways, and return how it ended."""
        prompt, seed, size = rng.choice(PROMPTS), rng.randrange(2), rng.choice(self.sizes)
        recipe, guard = rng.choice(self.recipes), rng.random() < 0.5
        try:
            handle = self.model.submit(prompt, size, recipe=recipe, seed=seed, guard=guard, **self.options)
        except BusyError:
            time.sleep(0.01)
            return "busy"
        way = rng.choice(("cancel", "wait", "read"))
        for _ in zip(range({"cancel": 3, "wait": 0, "read": size}[way]), handle, strict=False):
            time.sleep(rng.choice((0, 0, 0.005)))
        if way == "cancel":
            handle.cancel()
        answer = handle.result(120)
        assert answer.token_ids == self.expected[prompt, seed][: len(answer.token_ids)], (prompt, seed, recipe)
        assert answer.finish_reason == "length" if len(answer.token_ids) == size else way == "cancel"
        return answer.finish_reason


def shake(model: Model, seconds: float) -> None:
    """Let threads use a model at random, and check what they got."""
    shaker = Shaker(model)
    shaker.run(seconds)
    assert shaker.errors == []
    assert shaker.counts["length"] > THREADS and shaker.counts["cancelled"] > 0


@pytest.mark.thorough
@pytest.mark.parametrize("together", [True, *slow(False)])
def test_threads_that_submit_and_cancel_get_no_wrong_token(
    load: Callable[..., Model], backend: ToyBackend, together: bool
) -> None:
    backend.together = together
    shake(load(running=3, waiting=THREADS // 2, pieces=4), 3)


@pytest.mark.slow
def test_threads_that_submit_and_cancel_for_ten_minutes_get_no_wrong_token(
    load: Callable[..., Model], backend: ToyBackend
) -> None:
    backend.together = True
    shake(load(running=3, waiting=THREADS // 2, pieces=4), 600)


def test_the_context_ends_an_answer_without_a_limit(toy_model: Model) -> None:
    answer = toy_model.submit([1] * (CONTEXT - 3), None, ignore_eos=True).result(60)
    assert (len(answer.token_ids), answer.finish_reason) == (3, "length")


def test_an_engine_with_lanes_that_does_not_load_ends_the_requests(
    load: Callable[..., Model], backend: ToyBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend.together = True
    model = load()

    def fail(engine: object) -> None:
        raise BackendError("the file is gone")

    monkeypatch.setattr(model.engines, "lanes_for", fail)
    handles = [model.submit(PROMPT, 5) for _ in range(2)]
    for handle in handles:
        with pytest.raises(BackendError, match="the file is gone"):
            handle.result(60)
    monkeypatch.undo()


@pytest.mark.parametrize("planned", [True, False])
def test_prices_are_those_of_the_plan_and_are_measured_only_without_one(
    load: Callable[..., Model], backend: ToyBackend, monkeypatch: pytest.MonkeyPatch, planned: bool
) -> None:
    """What is measured is said once."""
    backend.together = True
    rounds: list[LanesEngine] = []

    def measure(engine: LanesEngine) -> Prices:
        rounds.append(engine)
        return Prices(run=1.0)

    monkeypatch.setattr(LanesEngine, "measure", measure)
    bundle = load().bundle
    plan = {"plan": {"prices": {"run": 0.03, "lane": 0.001, "slot": 0.002}}} if planned else {}
    model = Model(replace(bundle, manifest=replace(bundle.manifest, extra=plan)))
    with warnings.catch_warnings(record=True) as notices:
        warnings.simplefilter("always")
        for _ in range(2):
            handles = [model.submit(prompt, 8, recipe="prompt-lookup") for prompt in PROMPTS[:3]]
            assert all(handle.result(60).token_ids for handle in handles)
    model.close()
    assert len(rounds) == len(notices) == (0 if planned else 1)
    remedy = f"to write them into the bundle, run specc tune {bundle.path}"
    assert all(str(notice.message).endswith(remedy) for notice in notices)


def test_a_plan_with_prices_of_another_form_is_refused_when_the_bundle_is_loaded(load: Callable[..., Model]) -> None:
    bundle = load().bundle
    with pytest.raises(BundleError, match=r"manifest\.extra\.plan\.prices"):
        Model(replace(bundle, manifest=replace(bundle.manifest, extra={"plan": {"prices": 7}})))


def test_no_step_runs_when_python_ends(
    load: Callable[..., Model], backend: ToyBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python stops the thread of the scheduler wherever it is. In native code that aborts the process."""
    backend.model, model, exits = Slow, load(), list[Callable[[], None]]()
    monkeypatch.setattr("atexit.register", exits.append)
    monkeypatch.setattr("atexit.unregister", exits.remove)
    model.submit(PROMPT, 2).result(60)
    limit = time.monotonic() + 30
    while exits:  # The thread ends soon after the last request.
        assert time.monotonic() < limit, "the thread goes on"
        time.sleep(0.001)
    handle = model.submit(PROMPT, 200, ignore_eos=True)
    next(handle)
    (end,) = exits
    end()
    count = handle.stats.target_calls
    time.sleep(0.1)
    assert handle.finish_reason is None
    assert handle.stats.target_calls == count
    with pytest.raises(SpeccError, match="the program ends"):
        model.submit(PROMPT, 2)
