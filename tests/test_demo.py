"""The main job on the shipped models: every recipe identical to plain, samples of the target's distribution."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chance import chi_square_rejects
from quick_compile import compile_quickly
from resident import resident
from toys import step

import specc
from specc.compiler import Options
from specc.exactness import golden
from specc.recipes import METHODS
from specc.runtime.acceptance import Acceptance
from specc.runtime.acceptance import rule as mark_rule
from specc.runtime.call import Call, finish
from specc.runtime.draft import ONE_SLOT, Accepted, Draft, Verified
from specc.runtime.drafters import Drafter, Drafting, Proposal
from specc.runtime.drafters.easy_spec import EasySpec
from specc.runtime.loop import Decoding, stepping
from specc.runtime.method import load_acceptance, load_method
from specc.runtime.recipe import Recipe
from specc.runtime.rng import SeededRng, Use
from specc.runtime.sampling import Sampling
from specc.runtime.scheduler import SchedulerPolicy
from specc.runtime.sequence import Cache, Caches, Sequence
from specc.runtime.session import Session
from specc.runtime.stats import Stats

pytestmark = [pytest.mark.torch, pytest.mark.model]

EXAMPLES = Path(__file__).parent.parent / "examples"
SAMPLES = 1500
FEWER = 600  # They are enough to reject the biased rule.
PROMPT = "def "
ASSISTANT = str(EXAMPLES / "pycode-1m")
HEAD = EXAMPLES / "heads" / "eagle3-pycode-10m"
# Those that a compile with an assistant model has by default, two that other tests ask for, and one with a head.
RECIPES = (
    *("plain", "quantized-self-draft", "layer-skip", "early-exit", "prompt-lookup", "recycled-lookup", "cascade"),
    *(
        "staged",
        "draft-model",
        "token-recycling",
        "jacobi",
        "lookahead",
        "dynamic-tree",
        "copyspec",
        "adaptix",
        "eagle3",
    ),
)
COMPILED = {name: method for name, method in METHODS.items() if method.head in ("", "eagle3")}


def compiled(output: Path, recipes: Iterable[str], untuned_model: str | None = None) -> Session:
    """Compile the shipped models with some recipes."""
    options = Options(
        model=str(EXAMPLES / "pycode-10m"),
        output=output,
        recipes=tuple(recipes),
        heads=[HEAD],
        assistant_model=ASSISTANT,
        untuned_model=untuned_model,
        corpus=EXAMPLES.parent / "runtime" / "drafters",
        prompts=EXAMPLES / "prompts.jsonl",
        dtype="fp32",  # also where specc-kernels would make it bf16
    )
    compile_quickly(options)
    return specc.load(output).conversation


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory, translations: None) -> Session:
    return compiled(tmp_path_factory.mktemp("demo") / "demo.specc", RECIPES)


def check_every_lossless_recipe(session: Session) -> None:
    """Check that each lossless recipe gives the tokens of the original model on every golden prompt."""
    cases = golden.read_cases(session.bundle.file(golden.FILE))
    recipes = [recipe.name for recipe in session.bundle.manifest.recipes if METHODS[recipe.name].lossless]
    results = golden.replay(session, cases, recipes, session.bundle.manifest.near_tie_tolerance)
    assert len(results) == len(cases) * len(recipes) > 90
    assert [r for r in results if r.verdict != "identical"] == []


def test_recipes_are_identical_to_the_original_model_on_every_golden_prompt(demo: Session) -> None:
    check_every_lossless_recipe(demo)


@pytest.mark.slow
def test_every_lossless_recipe_is_identical_to_the_original_model_on_every_golden_prompt(tmp_path: Path) -> None:
    """It builds 54 engines. `test_every_recipe.py` runs each recipe over the tiny model."""
    check_every_lossless_recipe(compiled(tmp_path / "all.specc", COMPILED, ASSISTANT))


def test_recycled_lookup_takes_more_than_1_8_tokens_a_step(demo: Session) -> None:
    """The golden prompts are of held-out files."""
    cases = golden.read_cases(demo.bundle.file(golden.FILE))
    stats = [demo.generate(c.prompt_ids, 96, recipe="recycled-lookup", ignore_eos=True).stats for c in cases]
    assert sum(s.new_tokens - 1 for s in stats) / sum(s.target_calls for s in stats) > 1.8


@pytest.mark.parametrize("recipe", ["copyspec", "adaptix"])
def test_what_repeats_the_text_takes_more_than_two_tokens_a_step(demo: Session, recipe: str) -> None:
    """The golden prompts are code, whose answers repeat themselves."""
    cases = golden.read_cases(demo.bundle.file(golden.FILE))
    stats = [demo.generate(c.prompt_ids, 96, recipe=recipe, ignore_eos=True, guard=False).stats for c in cases]
    assert sum(s.new_tokens - 1 for s in stats) / sum(s.target_calls for s in stats) > 2


def decoded(
    demo: Session, recipe: Recipe, drafter: Drafter, prompt: list[int], count: int, draft_tokens: int
) -> Decoding:
    """Decode `count` tokens or a few more greedily, with drafts of `draft_tokens` at most, and return the request."""
    seq = Sequence(list(prompt), Caches(demo.engines.store))
    demo.engines["prefill"].extend(seq.cache, prompt[:-1])
    request = Decoding(
        seq=seq,
        drafting=drafter.open(seq),
        verifiers=[demo.engines[name] for name in recipe.verify],
        accept=load_acceptance("match"),
        stats=Stats(recipe=recipe.name),
    )
    while len(seq.tokens) < len(prompt) + count:
        finish(stepping(request, draft_tokens), request.stats.charge)
    return request


@pytest.mark.slow
def test_calibrated_drafts_of_easyspec_are_accepted_more_often_than_uncalibrated_ones(tmp_path: Path) -> None:
    """EasySpec's own test. Without the exact pass the draft model goes on from rows that it made inexactly."""
    demo = compiled(tmp_path / "easyspec.specc", ("easyspec", "eagle3"))
    recipe = demo.bundle.recipe("easyspec")
    draft, calibrate, prefill = (demo.engines[recipe.engines[name]] for name in ("draft", "calibrate", "prefill"))
    most, rates = int(recipe.parameters["num_speculative_tokens"]), []
    for engines in ((draft, calibrate, prefill), (draft, draft, draft)):
        drafter = EasySpec(*engines, num_speculative_tokens=most)
        prompts = [case.prompt_ids for case in golden.read_cases(demo.bundle.file(golden.FILE))]
        stats = [decoded(demo, recipe, drafter, list(prompt), 200, most).stats for prompt in prompts]
        rates.append(sum(s.accepted for s in stats) / sum(s.drafted for s in stats))
    assert rates[0] > rates[1] > 0


@pytest.mark.slow
def test_quantspec_s_engines_have_the_tokens_of_plain_steps_over_the_same_rows_of_8_bits(tmp_path: Path) -> None:
    """The prompt is long enough for rounded rows, and the answer goes beyond the end of a group of them."""
    demo = compiled(tmp_path / "int8.specc", ("quantspec-int8", "eagle3"))
    recipe = demo.bundle.recipe("quantspec-int8")
    drafter = demo.shared.guarded_drafter(load_method(recipe, "match")).drafter
    prompt = demo.text.encode((EXAMPLES.parent / "runtime" / "tree.py").read_text())[:180]
    texts, rows = [], [demo.engines["decode"], *(demo.engines[name] for name in recipe.verify)]
    for draft_tokens in (99, 0):
        request = decoded(demo, recipe, drafter, prompt, 40, draft_tokens)
        texts.append(request.seq.tokens[: len(prompt) + 40])
    assert texts[0] == texts[1] and request.stats.drafted == 0
    seq = request.seq
    exact, rounded = (Call(engine, seq.cache, 0, [7], ONE_SLOT).run().logits_NV for engine in rows[:2])
    assert exact is not None and rounded is not None
    assert 0 < np.abs(exact - rounded).max() < 0.1  # The control: rounded rows are others, and nearly the same.


def test_every_weight_is_stored_once(demo: Session) -> None:
    """All engines of two models in one file: fp32 weights, tied ones once, and a copy of 4 bits and scales."""
    folders = (EXAMPLES / "pycode-10m", EXAMPLES / "pycode-1m", HEAD)
    models = sum((folder / "model.safetensors").stat().st_size for folder in folders)
    sizes = {name: spec.bytes for name, spec in demo.bundle.manifest.files.items()}
    copy = (4 + 32 / 32) / 16  # bits of a weight and its share of a scale, by those of bf16
    assert sizes[demo.bundle.manifest.weights] < 1.05 * (2 + copy) * models
    assert (
        sum(size for name, size in sizes.items() if name.endswith(".onnx")) < 0.05 * sizes[demo.bundle.manifest.weights]
    )


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere NumPy commits the rows")
def test_a_further_conversation_commits_little_more_than_the_rows_that_it_fills(demo: Session) -> None:
    sessions, growth = [], []
    for number in range(4):
        session = Session(demo.shared)
        sessions.append(session)
        before = resident()
        session.generate([7 + number] * 120, 80, recipe="plain", ignore_eos=True)
        growth.append(resident() - before)
    spec, scratch, other = demo.bundle.manifest.caches["target"], 128, 3 * 2**20
    assert min(growth) < (200 + scratch) / spec.capacity * spec.bytes + other < 0.6 * spec.bytes


def test_requests_that_begin_alike_share_rows_and_get_the_answers_that_each_gets_alone(demo: Session) -> None:
    """Three at once and four later, greedy and seeded, by several recipes. The first 512 tokens are computed once."""
    text = "".join((EXAMPLES.parent / "runtime" / name).read_text() for name in ("tree.py", "draft.py"))
    prefix = demo.text.encode(text)[:512]
    prompts = [[*prefix, *demo.text.encode(f"def part_{number}(self, tree):")] for number in range(7)]
    recipes = ("plain", "prompt-lookup", "recycled-lookup", "cascade", "dynamic-tree", "early-exit", "plain")
    options: list[dict[str, Any]] = [
        {"recipe": recipe, "temperature": 0.8 * (number % 2), "seed": number, "ignore_eos": True}
        for number, recipe in enumerate(recipes)
    ]
    alone = []
    for prompt, option in zip(prompts, options, strict=True):
        demo.cache.sync([])
        alone.append(demo.generate(prompt, 32, **option).token_ids)
    with specc.load(demo.bundle.path, policy=SchedulerPolicy(running=3)) as model:
        prefill = model.engines["prefill"]
        handles = [model.submit(prompt, 32, **option) for prompt, option in zip(prompts, options, strict=True)]
        assert [handle.result(120).token_ids for handle in handles] == alone
        chunks = -(-512 // prefill.slots)
        assert prefill.calls <= chunks + len(prompts) < len(prompts) * chunks


@mark_rule(needs_draft_probs=True)
def biased(draft: Draft, verified: Verified) -> Accepted:
    """The known trap: the draft's likeliest tokens, not sampled ones, accepted with min(1, p / q)."""
    p, rng = verified.probs(0), verified.rng(0, Use.ACCEPT)
    for child in draft.tree.children[0]:
        x, q = draft.tokens[child], draft.probs[0]
        if rng.bernoulli(min(1.0, p[x] / q[x])):
            return Accepted((0, child), verified.choose(child))
        p = np.maximum(p - q, 0)
        p /= p.sum()
    return Accepted((0,), rng.pick(p))


class Likeliest(Drafting[Any]):
    """A drafting made deterministic: what it would have sampled is replaced by the likeliest tokens."""

    def __init__(self, drafting: Drafting[Any]) -> None:
        super().__init__(drafting.drafter, drafting.seq)
        self.drafting = drafting

    def propose(self, room: int) -> Proposal:
        draft = yield from self.drafting.propose(room)
        best = np.argsort(-draft.probs[0])
        tokens = list(draft.tokens)
        for child, token in zip(draft.tree.children[0], best, strict=False):
            tokens[child] = int(token)
        return draft._replace(tokens=tuple(tokens))


def first_tokens(
    demo: Session, recipe: str, rule: Acceptance, wrap: Callable[..., Any] | None = None, samples: int = SAMPLES
) -> Counter[int]:
    """The first token of a verify step, over seeds, after one fixed prompt and pending token."""
    choice = demo.bundle.recipe(recipe)
    drafter = demo.shared.guarded_drafter(load_method(choice, "recursive" if wrap else rule)).drafter
    verifiers = [demo.engines[v] for v in choice.verify]
    tokens = demo.text.encode(PROMPT)
    caches = Caches(demo.engines.store)
    cache = caches["target"]
    demo.engines["prefill"].extend(cache, tokens[:-1])
    counts: Counter[int] = Counter()
    for seed in range(samples):
        cache.sync(tokens[:-1])
        seq = Sequence(list(tokens), caches, Sampling(1.0, rng=SeededRng(seed)))
        drafting = drafter.open(seq)
        step(
            Decoding(
                seq=seq,
                drafting=wrap(drafting) if wrap else drafting,
                verifiers=verifiers,
                accept=rule,
                stats=Stats(recipe=recipe),
            )
        )
        counts[seq.tokens[len(tokens)]] += 1
    return counts


def target(demo: Session) -> dict[int, float]:
    """What plain decoding samples from at that place."""
    tokens = demo.text.encode(PROMPT)
    engine, cache = demo.engines["decode"], Cache(demo.cache.store)
    engine.extend(cache, tokens)
    assert engine.outputs.logits_NV is not None
    return dict(enumerate(Sampling(1.0).probs(engine.outputs.logits_NV[0]).tolist()))


@pytest.mark.parametrize(
    ("recipe", "rule"),
    [
        # Every drafter's tokens by `match` are those of plain decoding with that seed, as test_drafters.py checks.
        pytest.param("token-recycling", "match", marks=pytest.mark.slow),
        pytest.param("draft-model", "speculative", marks=pytest.mark.slow),
        ("dynamic-tree", "recursive"),
        pytest.param("plain", "match", marks=pytest.mark.slow),
        pytest.param("early-exit", "match", marks=pytest.mark.slow),
        pytest.param("layer-skip", "speculative", marks=pytest.mark.slow),
        pytest.param("early-exit", "recursive", marks=pytest.mark.slow),
    ],
)
def test_samples_follow_the_targets_distribution(demo: Session, recipe: str, rule: str) -> None:
    counts = first_tokens(demo, recipe, load_acceptance(rule))
    assert len(counts) > 20 and not chi_square_rejects(counts, target(demo))


def test_the_biased_rule_is_rejected(demo: Session) -> None:
    assert chi_square_rejects(first_tokens(demo, "early-exit", biased, Likeliest, FEWER), target(demo))
