"""Options of `specc train` that contradict each other, or that a training does not read."""

from __future__ import annotations

from pathlib import Path

import pytest
from shell import refused

from specc.cli import _commands
from specc.cli.train_options import EXCLUSIVE

VALUES = {
    "assistant_model": "small",
    "answers": "a.jsonl",
    "head": "head",
    "draft_layers": "2",
    "draft_vocab_size": "64",
    "divergence": "forward-kl",
    "costs": "m.specc",
    "own_text": "0.5",
    "batch_tokens": "64",
}


def name_of(parameter: str) -> str:
    return "--" + parameter.replace("_", "-")


def value_of(parameter: str) -> list[str]:
    return [] if parameter in ("online", "with_model") else [VALUES.get(parameter, "8")]


def argv(tmp_path: Path, recipe: str, *parameters: str) -> list[str]:
    options = [word for parameter in parameters for word in (name_of(parameter), *value_of(parameter))]
    return ["train", str(tmp_path), "--recipe", recipe, "-o", str(tmp_path / "h"), *options]


@pytest.mark.parametrize(("one", "other"), EXCLUSIVE)
def test_two_options_of_which_a_training_would_read_one_are_refused(one: str, other: str, tmp_path: Path) -> None:
    for pair in ((one, other), (other, one)):
        message = refused(*argv(tmp_path, "eagle3", *pair))
        assert message == f"{name_of(one)} and {name_of(other)} exclude each other; give one of them"


@pytest.mark.torch
@pytest.mark.parametrize(
    ("recipe", "parameter", "other"),
    [
        *(("eagle3", name, "draft-model") for name in ("draft_layers", "divergence", "own_text", "answers", "online")),
        *(("medusa", name, "draft-model") for name in ("assistant_model",)),
        *(("eagle3", name, "relaxed-recursive") for name in ("loops", "rank")),
        *(("draft-model", name, "eagle3") for name in ("draft_vocab_size", "head", "bits", "self_prompts")),
        *(("s2d", name, "relaxed-recursive") for name in ("loops", "rank")),
        ("relaxed-recursive", "draft_layers", "draft-model"),
        *(("ppd", name, "eagle3") for name in ("draft_vocab_size", "head")),
        *(("tr-jacobi", name, "eagle3") for name in ("bits", "recording_minutes", "costs")),
        *(("judge-decoding", name, "eagle3") for name in ("minutes", "updates", "learning_rate", "bits")),
        *(("specdec-plus-plus", name, "eagle3") for name in ("batch_tokens", "accumulate")),
    ],
)
def test_an_option_that_the_training_does_not_read_is_refused(
    recipe: str, parameter: str, other: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("specc.cli.train._costs", lambda path: {})
    assert refused(*argv(tmp_path, recipe, parameter)) == (
        f"the training of {recipe} does not read {name_of(parameter)}; leave it out, or give a --recipe that reads it, "
        f"such as {other}"
    )
    assert "does not read" not in refused(*argv(tmp_path, other, parameter))  # there is no model
    assert "does not read" not in refused(*argv(tmp_path, recipe))  # defaults are no options that the user gave


@pytest.mark.torch
def test_a_training_of_the_model_reads_other_options_than_one_of_the_head_alone(tmp_path: Path) -> None:
    message = refused(*argv(tmp_path, "lexical-units", "with_model", "self_prompts"))
    assert message.startswith("the training of lexical-units with --with-model does not read --self-prompts; leave")
    assert "does not read" not in refused(*argv(tmp_path, "lexical-units", "self_prompts"))


@pytest.mark.torch
def test_every_training_says_which_options_of_the_verb_it_reads() -> None:
    from specc.training.draft_kinds import KINDS
    from specc.training.jobs import READ, TRAININGS

    parameters = {parameter.name for parameter in _commands().commands["train"].params}
    assert set(TRAININGS.values()) <= set(READ)
    assert set.union(*(set(names) for names in READ.values())) <= parameters
    assert set.union(*(set(kind.reads) for kind in KINDS.values())) <= parameters
