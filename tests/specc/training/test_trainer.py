"""The loop: it learns, it is deterministic, it resumes exactly, and it stops at a loss that is not a number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from small_head import head, recordings, teacher
from torch import Tensor

from specc.runtime.errors import HeadError, SpeccWarning
from specc.training.acceptance import measure
from specc.training.checkpoint import Progress
from specc.training.distillation import Distillation
from specc.training.eagle3 import COURSE
from specc.training.shards import Recording
from specc.training.trainer import Sight, Trainer, TrainerOptions

pytestmark = pytest.mark.torch
OPTIONS = TrainerOptions(updates=6, tokens=200, warm_up=2, every=0.0, evaluations=2, learning_rate=3e-3)
HELD_OUT = {"toy": recordings(2, seed=9)}


def trainer(directory: Path, options: TrainerOptions = OPTIONS) -> Trainer:
    directory.mkdir(exist_ok=True)
    module = head("eagle3")
    loss = Distillation(teacher(), module.vocabulary)
    return Trainer(module, COURSE, loss, options, directory / "checkpoint.safetensors", {"toy": 1})


def state(run: Trainer) -> dict[str, Tensor]:
    """Return the last weights and the optimizer's moments."""
    return load_file(run.checkpoint)


def assert_equal(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


class StopError(Exception):
    pass


def stop_after(count: int) -> object:
    """Return a display that interrupts a training after so many updates."""
    updates: list[Sight] = []

    def show(sight: Sight) -> None:
        updates.append(sight)
        if len(updates) == count:
            raise StopError

    return show


def test_the_acceptance_grows(tmp_path: Path) -> None:
    run = trainer(tmp_path, replace(OPTIONS, updates=90))
    held_out = recordings(4, seed=9)
    before = measure(run.head, COURSE, held_out, 3).chain
    progress = run.run(recordings(30), {"toy": held_out})
    assert measure(run.head, COURSE, held_out, 3).chain > before + 0.5
    assert progress.best == max(progress.acceptances.values())
    losses = [progress.losses[key][0] for key in sorted(progress.losses, key=int)]
    assert losses[-1] < losses[0]


def test_two_runs_give_equal_weights_and_another_seed_does_not(tmp_path: Path) -> None:
    runs = [trainer(tmp_path / name, replace(OPTIONS, seed=seed)) for name, seed in (("a", 0), ("b", 0), ("c", 1))]
    for run in runs:
        run.run(recordings(12), HELD_OUT)
    first, second, other = map(state, runs)
    assert_equal(first, second)
    assert not torch.equal(first["head.fc.weight"], other["head.fc.weight"])


def test_a_batch_of_so_few_rows_that_none_is_drawn_at_a_depth_has_a_finite_loss(tmp_path: Path) -> None:
    run = trainer(tmp_path, replace(OPTIONS, updates=3, tokens=1, share=0.0))
    assert run.run(recordings(3), HELD_OUT).updates == 3


@pytest.mark.parametrize("after", [1, 3, 5])
def test_an_interrupted_training_gives_the_weights_of_one_that_was_not(after: int, tmp_path: Path) -> None:
    whole = trainer(tmp_path / "whole")
    whole.run(recordings(12), HELD_OUT)
    first = trainer(tmp_path / "parts")
    with pytest.raises(StopError):
        first.run(recordings(12), HELD_OUT, stop_after(after))  # type: ignore[arg-type]
    second = trainer(tmp_path / "parts")
    progress = second.run(recordings(12), HELD_OUT)
    assert progress.updates == whole.progress.updates and progress.acceptances == whole.progress.acceptances
    assert_equal(state(whole), state(second))
    assert_equal(whole.head.state_dict(), second.head.state_dict())


def test_a_checkpoint_of_other_settings_is_not_used(tmp_path: Path) -> None:
    trainer(tmp_path).run(recordings(12), HELD_OUT)
    other = trainer(tmp_path)
    other.settings = {"toy": 2}
    updates: list[Sight] = []
    with pytest.warns(SpeccWarning, match="is of a training with other options or texts; this one begins anew"):
        other.run(recordings(12), HELD_OUT, updates.append)
    assert len(updates) > 0


def test_a_training_that_is_done_makes_no_more_updates(tmp_path: Path) -> None:
    first = trainer(tmp_path)
    first.run(recordings(12), HELD_OUT)
    second = trainer(tmp_path)
    updates: list[Sight] = []
    second.run(recordings(12), HELD_OUT, updates.append)
    assert updates == []
    assert_equal(first.head.state_dict(), second.head.state_dict())


def spoiled(count: int) -> list[Recording]:
    """Return texts of which the longest has a state that is not a number: it comes late in the first epoch."""
    texts = recordings(count)
    texts[-1].final[5] = float("nan")
    return texts


def test_a_loss_that_is_not_a_number_stops_and_the_last_good_state_stays(tmp_path: Path) -> None:
    run = trainer(tmp_path, replace(OPTIONS, updates=50, evaluations=1))
    with pytest.raises(HeadError, match=r"the loss of update \d+ is nan; .*; train again with a lower --learning-rate"):
        run.run(spoiled(12), HELD_OUT)
    good = run.head.state_dict()
    assert all(bool(torch.isfinite(tensor.float()).all()) for tensor in good.values())
    assert_equal({f"head.{name}": tensor for name, tensor in good.items()}, heads(state(run)))


def heads(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint that are the head's."""
    return {name: tensor for name, tensor in tensors.items() if name.startswith("head.")}


def test_a_training_stops_when_the_acceptance_no_longer_grows_in_its_second_half(tmp_path: Path) -> None:
    options = replace(OPTIONS, updates=40, evaluations=20, patience=2, learning_rate=1e-12)
    progress = trainer(tmp_path, options).run(recordings(12), HELD_OUT)
    assert 20 <= progress.updates < 26 and progress.best_update == 0


def test_minutes_bound_the_training(tmp_path: Path) -> None:
    options = replace(OPTIONS, updates=None, minutes=1e-6)
    assert trainer(tmp_path, options).run(recordings(12), HELD_OUT).updates == 1


def test_the_learning_rate_rises_and_falls() -> None:
    run = TrainerOptions(updates=100, warm_up=10, learning_rate=1.0)
    rates = [run.rate(Progress(updates=update)) for update in range(100)]
    assert rates.index(max(rates)) == 9 and rates[0] < 0.11 and rates[-1] < 0.05


def test_accumulated_batches_are_one_update(tmp_path: Path) -> None:
    tokens = []
    for accumulate in (1, 3):
        run = trainer(tmp_path / str(accumulate), replace(OPTIONS, accumulate=accumulate))
        progress = run.run(recordings(30), HELD_OUT)
        tokens.append(progress.tokens / progress.updates)
    assert tokens[1] == pytest.approx(3 * tokens[0], rel=0.2)


def test_each_source_of_held_out_text_is_measured(tmp_path: Path) -> None:
    sources = {"near": recordings(2, seed=9), "far": recordings(3, seed=4)}
    progress = trainer(tmp_path).run(recordings(12), sources)
    assert progress.by_source.keys() == sources.keys()
    for update, chain in progress.acceptances.items():
        parts = [progress.by_source[source][update] for source in sources]
        assert min(parts) <= chain <= max(parts)


def fail_at(run: Trainer, update: int) -> None:
    """Let the optimizer of a training write weights that are not numbers at an update, as an overflow does."""
    step = run.optimizer.step

    def spoil(*args: object) -> None:
        step()
        if run.progress.updates + 1 == update:
            with torch.no_grad():
                next(run.head.parameters()).fill_(float("nan"))

    run.optimizer.step = spoil  # type: ignore[method-assign, assignment]


def test_weights_that_are_not_finite_stop_the_training_and_the_checkpoint_is_the_state_before(tmp_path: Path) -> None:
    run = trainer(tmp_path)
    fail_at(run, 3)
    message = r"after update 3 are not finite numbers; the last state with finite weights, of update 2, is in .*check"
    with pytest.raises(HeadError, match=message):
        run.run(recordings(12), HELD_OUT)
    assert all(bool(torch.isfinite(tensor).all()) for tensor in state(run).values())
    again = trainer(tmp_path)
    assert again.run(recordings(12), HELD_OUT).updates == OPTIONS.updates  # it goes on from there


def test_a_training_that_fails_before_its_first_checkpoint_says_that_no_state_was_saved(tmp_path: Path) -> None:
    run = trainer(tmp_path, replace(OPTIONS, every=60.0))
    fail_at(run, 1)
    with pytest.raises(HeadError, match="weights after update 1 are not finite numbers; no state was saved before"):
        run.run(recordings(12), HELD_OUT)
    assert not run.checkpoint.exists()


def test_a_loss_that_is_not_a_number_before_any_update_does_not_ask_for_a_lower_rate(tmp_path: Path) -> None:
    texts = recordings(12)
    for text in texts:
        text.final[5] = float("nan")
    with pytest.raises(HeadError, match=r"the loss of update 1 is nan, .* --learning-rate does not help; .* delete"):
        trainer(tmp_path).run(texts, HELD_OUT)


def test_a_head_whose_logits_are_not_numbers_is_not_measured(tmp_path: Path) -> None:
    run = trainer(tmp_path)
    assert measure(run.head, COURSE, recordings(2), 3).tokens > 0
    with torch.no_grad():
        next(run.head.parameters()).fill_(float("nan"))
    with pytest.raises(HeadError, match="logits of what is trained are not finite numbers"):
        measure(run.head, COURSE, recordings(2), 3)


def test_best_weights_that_are_not_finite_are_refused_and_without_them_those_of_the_checkpoint_are_measured(
    tmp_path: Path,
) -> None:
    first = trainer(tmp_path)
    first.run(recordings(12), HELD_OUT)
    with safe_open(first.best_file, "pt") as opened:
        notes = opened.metadata()
    weights = load_file(first.best_file)
    weights["head.fc.weight"].fill_(torch.nan)
    save_file(weights, first.best_file, metadata=notes)
    with pytest.raises(HeadError, match=r"best-checkpoint.* is damaged .*; delete it, and the weights of the check"):
        trainer(tmp_path).run(recordings(12), HELD_OUT)
    first.best_file.unlink()
    again = trainer(tmp_path)
    progress = again.run(recordings(12), HELD_OUT)
    assert progress.best_update == progress.updates == 6 and progress.best == progress.acceptances["6"] > 0
    assert_equal({f"head.{name}": tensor for name, tensor in again.head.state_dict().items()}, heads(state(again)))
    assert again.best_file.is_file()


def test_a_training_of_few_updates_has_their_mean_loss(tmp_path: Path) -> None:
    sights: list[Sight] = []
    progress = trainer(tmp_path).run(recordings(12), HELD_OUT, sights.append)
    assert progress.losses.keys() == {"6"} and progress.losses["6"][0] == pytest.approx(sights[-1].loss, abs=1e-4)
