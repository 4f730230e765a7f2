"""Heads of decoder layers with random weights, from their directories to tokens, all in one bundle."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from quick_compile import compile_quickly
from toy_heads import taps_of, target_of
from transformers import PreTrainedModel

import specc
from specc.compiler import Options
from specc.heads import Head, HeadConfig, build_head, save_head
from specc.heads.adaeagle import AdaEagle
from specc.huggingface import load_model
from specc.runtime.draft import Draft
from specc.runtime.drafters import Drafting, Proposal
from specc.runtime.drafters.ada_eagle import AdaEagleDrafting
from specc.runtime.drafters.peagle import PeagleDrafting
from specc.runtime.model import Model

pytestmark = [pytest.mark.torch, pytest.mark.model, pytest.mark.slow]

LAYER: dict[str, float] = {
    "heads": 4, "key_heads": 2, "head_size": 16, "mlp_size": 96, "rope_theta": 1e4, "eps": 1e-5
}  # fmt: skip
FINAL = (3,)
HEADS: dict[str, tuple[tuple[int, ...], dict[str, float]]] = {
    "eagle": (FINAL, {"final_norm": 0}),
    "mtp": (FINAL, {"token_norm": 1, "state_norm": 1, "input_norm": 1, "bias": 1, "head_norm": 1}),
    "peagle": ((0, 1, -1), {"layers": 2}),
    "adaeagle": ((0, 1, -1), {}),
    "fspad": (FINAL, {"final_norm": 0}),
    "falcon": (FINAL, {"final_norm": 0}),
    "tandem": ((0, -1), {}),
}
RECIPES = ("eagle", "eagle2", "mtp", "peagle", "adaeagle", "fspad", "falcon", "tandem")
TEXT = [i % 400 for i in range(150)]
LONGEST = 4  # tokens of a draft


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
def runner(heads: dict[str, Head], model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    directory = tmp_path_factory.mktemp("layers")
    for name, head in heads.items():
        save_head(head, directory / name, {"card.json": "{}"})
        # The stored numbers are rounded, and the drafts are compared with those of the head.
        head.load_state_dict({key: value.bfloat16().float() for key, value in head.state_dict().items()})
    prompts = directory / "prompts.jsonl"
    prompts.write_text(json.dumps({"prompt": "def wrap(text):"}) + "\n", encoding="utf-8")
    options = Options(
        model=str(model),
        output=directory / "b.specc",
        recipes=RECIPES,
        heads=[directory / name for name in heads],
        prompts=prompts,
        golden_tokens=8,
        draft_dtype="fp32",
    )
    compile_quickly(options)
    with specc.load(directory / "b.specc") as bundle:
        yield bundle


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_greedy_and_seeded_tokens_are_those_of_plain_decoding(runner: Model, recipe: str, temperature: float) -> None:
    options: dict[str, Any] = {"temperature": temperature, "seed": 3, "ignore_eos": True}
    plain = runner.session().generate(TEXT, 40, recipe="plain", **options)
    answer = runner.session().generate(TEXT, 40, recipe=recipe, guard=False, **options)
    assert answer.token_ids == plain.token_ids


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
