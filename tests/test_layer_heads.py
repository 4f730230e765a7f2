"""Heads of decoder layers with random weights, from their directories to tokens, all in one bundle."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest
import torch
from block_attention import block_attention
from quick_compile import compile_quickly
from toy_heads import taps_of, target_of
from transformers import PreTrainedModel

import specc
from specc.backends import Options as BuildOptions
from specc.compiler import Options
from specc.heads import Head, HeadConfig, build_head, save_head
from specc.heads.adaeagle import AdaEagle
from specc.heads.dflash import Dflash
from specc.heads.falcon import LAYERS as LSTM_LAYERS
from specc.heads.falcon import PARTS, Falcon
from specc.heads.glide import Glide
from specc.heads.head import parts
from specc.huggingface import load_model
from specc.runtime.draft import Draft
from specc.runtime.drafters import Drafting, Proposal
from specc.runtime.drafters.ada_eagle import AdaEagleDrafting
from specc.runtime.drafters.chimera import ChimeraDrafting, with_tokens
from specc.runtime.drafters.dflash import PENDING, DflashDrafting
from specc.runtime.drafters.draft_model import DraftModelDrafting
from specc.runtime.drafters.eagle_tree import EagleTreeDrafting
from specc.runtime.drafters.falcon import FalconDrafting
from specc.runtime.drafters.jakiro import AHEAD, FIRST, OTHER, JakiroDrafting
from specc.runtime.drafters.peagle import PeagleDrafting
from specc.runtime.model import Model
from specc.training.glide import model_rows

pytestmark = [pytest.mark.torch, pytest.mark.model, pytest.mark.slow]

LAYER: dict[str, float] = {
    "heads": 4, "key_heads": 2, "head_size": 16, "mlp_size": 96, "rope_theta": 1e4, "eps": 1e-5
}  # fmt: skip
FINAL = (3,)
HEADS: dict[str, tuple[tuple[int, ...], dict[str, float]]] = {
    "eagle": (FINAL, {"final_norm": 0}),
    "mtp": (FINAL, {"token_norm": 1, "state_norm": 1, "input_norm": 1, "bias": 1, "head_norm": 1}),
    "peagle": ((0, 1, -1), {"layers": 2}),
    "dflash": ((0, 1, -1), {"layers": 2, "guesses": 6}),
    "adaeagle": ((0, 1, -1), {}),
    "fspad": (FINAL, {"final_norm": 0}),
    "falcon": (FINAL, {"final_norm": 0}),
    "chimera": ((-1,), {"heads": 8, "key_heads": 4}),
    "jakiro": (FINAL, {"final_norm": 0, "mlp_size": 0, "expert_size": 48}),
    "tandem": ((0, -1), {}),
    "mixture_of_attentions": ((0, 1, -1), {}),
    "glide": ((), {}),
}
RECIPES = (
    "eagle", "eagle2", "mtp", "peagle", "dflash", "adaeagle", "fspad", "falcon", "jakiro", "chimera",
    "tandem", "mixture-of-attentions", "glide", "glide-cape",
)  # fmt: skip
TEXT = [i % 400 for i in range(150)]
LONGEST = 4  # tokens of a draft
LEVELS = 5  # of a tree


@pytest.fixture(scope="module")
def target(model: Path) -> PreTrainedModel:
    return load_model(str(model))


@pytest.fixture(scope="module")
def heads(target: PreTrainedModel) -> dict[str, Head]:
    """Heads that are large enough to draft other tokens than the model's embeddings alone would."""
    torch.manual_seed(4)
    made_heads: dict[str, Head] = {}
    facts, table = target_of(target), target.get_input_embeddings().weight
    assert isinstance(table, torch.Tensor)
    for name, (taps, settings) in HEADS.items():
        head = build_head(
            HeadConfig(
                architecture=name,
                target=facts,
                taps=taps,
                draft_vocab_size=facts.vocab_size,
                settings=LAYER | settings,
            )
        )
        for parameter in head.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        if isinstance(head, AdaEagle):
            head.length.weight.data *= 0.25  # The lengths lie about LONGEST then, and not all above.
        head.attach(table)
        made_heads[name] = head.eval().requires_grad_(False)
    return made_heads


@pytest.fixture(scope="module")
def saved(heads: dict[str, Head], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory that has a directory of each head."""
    directory = tmp_path_factory.mktemp("layers")
    for name, head in heads.items():
        save_head(head, directory / name, {"card.json": "{}"})
        # The stored numbers are rounded, and the drafts are compared with those of the head.
        head.load_state_dict(
            {key: value.bfloat16().float() if value.ndim == 2 else value for key, value in head.state_dict().items()}
        )
    return directory


def compile_heads(model: Path, saved: Path, names: Iterable[str], recipes: Sequence[str], **options: Any) -> Path:
    """Compile a bundle with some heads."""
    bundle = saved / f"{len(list(saved.glob('*.specc')))}.specc"
    prompts = saved / "prompts.jsonl"
    prompts.write_text(json.dumps({"prompt": "def wrap(text):"}) + "\n", encoding="utf-8")
    # Random heads are never sure, so that a tree of theirs pays only if steps cost nothing.
    free: dict[str, dict[str, Any]] = {
        name: {"step_costs": []} for name in ("mixture-of-attentions", "jakiro") if name in recipes
    }
    compile_quickly(
        Options(
            model=str(model),
            output=bundle,
            recipes=tuple(recipes),
            heads=[saved / name for name in names],
            prompts=prompts,
            golden_tokens=8,
            draft_dtype="fp32",
            parameters=free,
            **options,
        )
    )
    return bundle


@pytest.fixture(scope="module")
def runner(saved: Path, model: Path) -> Iterator[Model]:
    with specc.load(compile_heads(model, saved, HEADS, RECIPES)) as bundle:
        yield bundle


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_greedy_and_seeded_tokens_are_those_of_plain_decoding(runner: Model, recipe: str, temperature: float) -> None:
    options: dict[str, Any] = {"temperature": temperature, "seed": 3, "ignore_eos": True}
    plain = runner.session().generate(TEXT, 40, recipe="plain", **options)
    answer = runner.session().generate(TEXT, 40, recipe=recipe, guard=False, **options)
    assert answer.token_ids == plain.token_ids


def test_the_portable_lowering_drafts_the_same(runner: Model, saved: Path, model: Path) -> None:
    names = ("jakiro", "chimera", "falcon", "dflash")
    bundle = compile_heads(model, saved, names, names, build=BuildOptions(lowering="portable"))
    with specc.load(bundle) as portable:
        for recipe in names:
            ours, theirs = (
                each.session().generate(TEXT, 20, recipe=recipe, guard=False, ignore_eos=True)
                for each in (portable, runner)
            )
            assert ours.token_ids == theirs.token_ids
            assert ours.stats.drafted == theirs.stats.drafted > 0
            assert ours.stats.histogram == theirs.stats.histogram


def _drafts(
    runner: Model, recipe: str, drafting: type[Drafting[Any]], monkeypatch: pytest.MonkeyPatch
) -> list[tuple[list[int], Draft]]:
    """Return the drafts of an answer, each with the text that it follows.

    Those near the end of the answer are left out, since the answer's length cuts them.
    """
    drafts: list[tuple[list[int], Draft]] = []
    original = drafting.propose

    def spy(self: Drafting[Any], room: int) -> Proposal:
        text = list(self.seq.tokens)
        draft = yield from original(self, room)
        if room >= LONGEST:
            drafts.append((text, draft))
        return draft

    monkeypatch.setattr(drafting, "propose", spy)
    runner.session().generate(TEXT, 20, recipe=recipe, guard=False, ignore_eos=True)
    return drafts


@torch.no_grad()
def test_one_call_drafts_what_the_torch_module_guesses_without_tokens(
    runner: Model, heads: dict[str, Head], target: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = heads["peagle"]
    drafts = _drafts(runner, "peagle", PeagleDrafting, monkeypatch)
    assert len(drafts) > 5
    for text, draft in drafts:
        count = len(draft.tokens) - 1
        states = head.fuse(taps_of(target, torch.tensor([text]), head.taps))[:, :-1]
        states = torch.cat([states, torch.zeros(1, count - 1, states.shape[-1])], 1)
        tokens = torch.tensor([[*text[1:], *[0] * (count - 1)]])
        logits = head(tokens, torch.arange(tokens.shape[1])[None], states)["logits"][0, -count:]
        assert list(draft.tokens[1:]) == logits.argmax(-1).tolist()


@torch.no_grad()
def test_one_call_drafts_the_block_that_the_torch_module_guesses(
    runner: Model, heads: dict[str, Head], target: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = heads["dflash"]
    assert isinstance(head, Dflash)
    block = 1 + head.guesses
    drafts = _drafts(runner, "dflash", DflashDrafting, monkeypatch)
    assert len(drafts) > 5
    for text, draft in drafts:
        states = head.fuse(taps_of(target, torch.tensor([text]), head.taps))[:, :-1]
        rows = states.shape[1]
        slots = states[:, -1:].repeat(1, block, 1)
        slots[0, :, -1] = torch.arange(PENDING, PENDING + block)
        tokens, positions = torch.tensor([[*text[1:], *text[-1:] * block]]), torch.arange(rows + block)[None]
        stream = head.run_layers(tokens, positions, torch.cat([states, slots], 1), [block_attention(rows, block)] * 2)
        logits = head.logits(stream)[0, rows + 1 :]
        assert list(draft.tokens[1:]) == logits.argmax(-1).tolist()[: len(draft.tokens) - 1]


@torch.no_grad()
def test_a_draft_is_as_long_as_the_torch_module_says(
    runner: Model, heads: dict[str, Head], target: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = heads["adaeagle"]
    lengths = set()
    for text, draft in _drafts(runner, "adaeagle", AdaEagleDrafting, monkeypatch):
        if text[-1] == TEXT[-1]:
            continue
        states = head.fuse(taps_of(target, torch.tensor([text]), head.taps))[:, :-1]
        positions = torch.arange(len(text) - 1)[None]
        expected = float(head(torch.tensor([text[1:]]), positions, states)["state"][0, -1, -1])
        if abs(expected % 1 - 0.5) > 1e-3:
            assert len(draft.tokens) - 1 == min(LONGEST, max(0, round(expected)))
        lengths.add(len(draft.tokens) - 1)
    assert len(lengths) > 1


@torch.no_grad()
def test_a_draft_is_what_the_torch_module_guesses_beside_the_last_state_of_the_model(
    runner: Model, heads: dict[str, Head], target: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the tree, the path of the likeliest tokens is compared."""
    head = heads["mixture_of_attentions"]
    compared = 0
    for text, draft in _drafts(runner, "mixture-of-attentions", EagleTreeDrafting, monkeypatch):
        tokens, states = [*text], head.fuse(taps_of(target, torch.tensor([text]), head.taps))[:, :-1]
        slot = 0
        while children := draft.tree.children[slot]:
            positions = torch.arange(len(tokens) - 1)[None]
            state = torch.cat([states, *[states[:, -1:]] * (len(tokens) - len(text))], 1)
            best = int(head(torch.tensor([tokens[1:]]), positions, state)["logits"][0, -1].argmax())
            likeliest = [child for child in children if draft.tokens[child] == best]
            if not likeliest:
                assert slot, "the pending token's likeliest child is in every tree"
                break
            slot = likeliest[0]
            tokens.append(best)
            compared += 1
    assert compared > 20


@torch.no_grad()
def test_a_tree_has_what_the_torch_module_guesses_from_the_tokens_before_each_slot(
    runner: Model, heads: dict[str, Head], target: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The path of the likeliest tokens is compared, with all their siblings."""
    head, compared = heads["chimera"], 0
    for text, draft in _drafts(runner, "chimera", ChimeraDrafting, monkeypatch):
        tokens, slot = [*text], 0
        state = head.fuse(taps_of(target, torch.tensor([text]), head.taps))[:, :-1]
        while (children := draft.tree.children[slot]) and len(tokens) < len(text) + LONGEST:
            pairs = [(tokens[row], tokens[max(0, row - 1)]) for row in range(len(tokens) - 1)]
            whole = torch.from_numpy(with_tokens(state[0].numpy(), pairs))[None]
            result = head(torch.tensor([tokens[1:]]), torch.arange(len(tokens) - 1)[None], whole)
            likeliest = result["logits"][0, -1].topk(len(children)).indices.tolist()
            assert [draft.tokens[child] for child in children] == likeliest
            slot = children[0]
            tokens.append(draft.tokens[slot])
            state = torch.cat([state, result["state"][:, -1:]], 1)
            compared += len(children)
    assert compared > 20


@torch.no_grad()
def test_the_nodes_of_a_tree_are_those_of_both_experts_of_the_torch_module(
    runner: Model, heads: dict[str, Head], target: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last level has the guesses one place further. The test compares first drafts, which no limit cuts."""
    head, numbers = heads["jakiro"], {FIRST: 0, OTHER: 0, AHEAD: 0}

    def compare(draft: Draft, slot: int, tokens: list[int], states: torch.Tensor, level: int) -> None:
        result = head(torch.tensor([tokens[1:]]), torch.arange(len(tokens) - 1)[None], states)
        guesses = result["logits"][0, -1].topk(8).indices.tolist()
        for child in draft.tree.children[slot]:
            expert = FIRST if draft.tokens[child] == guesses[FIRST][0] else OTHER
            assert expert == FIRST or draft.tokens[child] in guesses[OTHER]
            numbers[expert] += 1
            if level < LEVELS - 1:
                own = torch.nn.functional.pad(parts(result["state"][:, -1:], 2)[expert], (0, states.shape[-1] // 2))
                compare(draft, child, [*tokens, draft.tokens[child]], torch.cat([states, own], 1), level + 1)
            else:
                ahead = [draft.tokens[below] for below in draft.tree.children[child]]
                assert set(ahead) <= set(guesses[AHEAD])
                numbers[AHEAD] += len(ahead)

    for text, draft in _drafts(runner, "jakiro", JakiroDrafting, monkeypatch)[:6]:
        final = target.get_submodule("model")(input_ids=torch.tensor([text])).last_hidden_state
        compare(draft, 0, text, head.fuse(final)[:, :-1], 1)
    assert min(numbers.values()) > 3


@torch.no_grad()
def test_the_nodes_of_a_tree_are_both_guesses_of_the_torch_modules_blocks(
    runner: Model, heads: dict[str, Head], target: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The module runs the whole text in one call, and the engines in several, of which each starts where one ended."""
    head, compared = heads["falcon"], 0
    assert isinstance(head, Falcon)

    def compare(draft: Draft, end: int, tokens: list[int], states: torch.Tensor) -> int:
        result = head(torch.tensor([tokens[1:]]), torch.arange(len(tokens) - 1)[None], states)
        first, second = result["logits"][0, -1].topk(8).indices.tolist()
        guesses = parts(result["state"][:, -1:], PARTS)
        pair = torch.nn.functional.pad(torch.cat([guesses[0], guesses[-1]], 1), (0, (PARTS - 1) * head.size))
        count = 0
        for rank, child in enumerate(draft.tree.children[end]):
            assert draft.tokens[child] == first[rank]
            below = draft.tree.children[child]
            assert [draft.tokens[node] for node in below] == second[: len(below)]
            count += 1 + len(below)
            for node in below:
                if draft.tree.children[node]:
                    both = [*tokens, draft.tokens[child], draft.tokens[node]]
                    count += compare(draft, node, both, torch.cat([states, pair], 1))
        return count

    for text, draft in _drafts(runner, "falcon", FalconDrafting, monkeypatch):
        final = target.get_submodule("model")(input_ids=torch.tensor([text])).last_hidden_state
        compared += compare(draft, 0, text, head.fuse(final)[:, :-1])
    assert compared > 20


def test_engines_run_an_lstm_as_products_of_static_shape(runner: Model) -> None:
    """Only the rows of a cache have no fixed number, so that a runtime may bind smaller caches."""
    engines = [engine for engine in runner.shared.bundle.manifest.engines if engine.block.model == "falcon"]
    assert {engine.block.slots for engine in engines} >= {5, 16}
    for engine in engines:
        graph = ir.load(runner.shared.bundle.path / engine.file).graph
        kinds = Counter(node.op_type for node in graph)
        assert not {"LSTM", "GRU", "RNN", "Scan", "Loop", "If"} & kinds.keys()
        assert kinds["Tanh"] == 2 * LSTM_LAYERS * engine.block.slots
        for value in (*graph.inputs, *graph.outputs):
            assert value.name is not None and value.shape is not None
            if not value.name.startswith(("past_key_values.", "present.")):
                assert all(isinstance(size, int) for size in value.shape), value.name


@torch.no_grad()
def test_a_draft_is_what_the_torch_module_guesses_over_the_rows_of_the_verified_tokens(
    runner: Model, heads: dict[str, Head], target: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = heads["glide"]
    assert isinstance(head, Glide)
    drafts = _drafts(runner, "glide", DraftModelDrafting, monkeypatch)
    assert len(drafts) > 5
    for text, draft in drafts:
        keys, values = model_rows(target, torch.tensor([text[:-1]]), head.read_layer)
        tokens = torch.tensor([[*text, *draft.tokens[1:-1]]])
        positions, rows = torch.arange(tokens.shape[1])[None], torch.tensor([len(text) - 1])
        logits = head.draft(tokens, positions, rows, keys, values)[0, len(text) - 1 :]
        of_draft = logits.gather(1, torch.tensor(draft.tokens[1:])[:, None])[:, 0]
        assert (logits.amax(-1) - of_draft).max() < 1e-3


def test_a_draft_binds_the_rows_of_the_target_and_copies_none(runner: Model, target: PreTrainedModel) -> None:
    """The rows of its own layer are all that the cache of the target has besides the target's."""
    layers = target.config.get_text_config().num_hidden_layers
    manifest = runner.shared.bundle.manifest
    engines = {engine.name: engine for engine in manifest.engines}
    assert "glide" not in manifest.caches
    cache = manifest.caches["target"]
    assert list(cache.layers) == [*map(str, range(layers)), str(layers)]
    heads, size = cache.layers[str(layers)]
    assert cache.bytes - replace(cache, layers={k: v for k, v in cache.layers.items() if k != str(layers)}).bytes == (
        2 * heads * size * cache.capacity * 4
    )
    for name in ("glide-draft", "glide-prefill"):
        read = [tensor.name for tensor in engines[name].inputs if tensor.name.startswith("past_key_values")]
        written = [tensor.name for tensor in engines[name].outputs if tensor.name.startswith("present")]
        kinds = ("key", "value")
        assert set(read) == {f"past_key_values.{n}.{kind}" for n in (layers - 1, layers) for kind in kinds}
        assert set(written) == {f"present.{layers}.{kind}" for kind in kinds}
        assert runner.shared.engines[name].store is runner.shared.engines["decode"].store


def test_a_second_text_and_a_longer_one_find_the_rows_of_the_first(runner: Model) -> None:
    options: dict[str, Any] = {"ignore_eos": True}
    for text in (TEXT, [*TEXT[:40], 7, 9], TEXT, [*TEXT, 5]):
        plain = runner.session().generate(text, 12, recipe="plain", **options)
        assert runner.session().generate(text, 12, recipe="glide", guard=False, **options).token_ids == plain.token_ids
