"""Several processes that train together: they have the same weights, which are those of one process alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import pytest
import several_processes
import torch
from safetensors.torch import load_file
from several_processes import HELD_OUT, head_trainer
from small_head import recordings
from torch._C._distributed_c10d import TCPStore

from specc.runtime.errors import HeadError
from specc.training import processes
from specc.training.device import device_named
from specc.training.jobs import options_read

pytestmark = pytest.mark.torch
PROGRAM = Path(several_processes.__file__)
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def torchrun(*arguments: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Start a program in two processes."""
    paths = os.pathsep.join([str(PROGRAM.parent), str(PROGRAM.parents[1]), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [*TORCHRUN, *map(str, arguments)], env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert result.returncode == 0 or not check, result.stderr
    return result


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return what two processes wrote."""
    folder = tmp_path_factory.mktemp("together")
    torchrun(PROGRAM, folder)
    return folder


def facts(folder: Path, number: int) -> dict[str, object]:
    data: dict[str, object] = json.loads((folder / f"facts-{number}.json").read_text())
    return data


def test_all_processes_have_the_same_weights_and_figures(folder: Path) -> None:
    for name in ("head", "letters"):
        first, second = (load_file(folder / f"{name}-{number}.safetensors") for number in (0, 1))
        assert first.keys() == second.keys()
        assert all(torch.equal(tensor, second[key]) for key, tensor in first.items())
    assert facts(folder, 0) == facts(folder, 1)


def test_two_processes_train_as_one_with_twice_the_batches(folder: Path, tmp_path: Path) -> None:
    alone = head_trainer(tmp_path / "alone", accumulate=2)
    progress = alone.run(recordings(12), HELD_OUT)
    together = load_file(folder / "head" / "checkpoint.safetensors")
    assert furthest(load_file(alone.checkpoint), together) < 1e-4
    other = head_trainer(tmp_path / "other", accumulate=1)
    other.run(recordings(12), HELD_OUT)
    assert furthest(load_file(other.checkpoint), together) > 1e-3
    acceptances = facts(folder, 0)["acceptances"]
    assert isinstance(acceptances, dict) and acceptances.keys() == progress.acceptances.keys()


def furthest(first: Mapping[str, torch.Tensor], second: Mapping[str, torch.Tensor]) -> float:
    """Return the largest difference of two sets of weights."""
    return max(float((tensor.float() - second[name].float()).abs().max()) for name, tensor in first.items())


def test_work_is_dealt_out_and_comes_back_in_order(folder: Path) -> None:
    one = facts(folder, 0)
    assert one["gathered"] == [0, 10, 20, 30, 40]
    assert one["agreed"] == "of process 0"
    assert one["gradients"] == [1.5, 4.0, None]


def test_an_epoch_that_cannot_be_shared_evenly_ends(folder: Path) -> None:
    # Two updates an epoch: of two batches, and of the third one, which both processes take.
    # Five updates are two epochs and the first update of a third.
    tokens = facts(folder, 0)["tokens"]
    assert isinstance(tokens, int) and 2 * 70 < tokens < 3 * 70
    # An update of two batches in each process has room for the three of an epoch.
    assert facts(folder, 0)["tokens of two batches each"] == 5 * 70


def test_a_loss_that_is_not_a_number_in_one_process_ends_all(folder: Path) -> None:
    for number in (0, 1):
        errors = facts(folder, number)["errors"]
        assert isinstance(errors, list)
        assert all("the loss of update 1 is nan" in error for error in errors)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["eagle3", "draft-model", "tr-jacobi"])
def test_the_command_trains_in_two_processes(recipe: str, model: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    sizes = ["--prompts", "24", "--answer-tokens", "12", "--held-out", "6", "--updates", "2"]
    if "self_prompts" in options_read(recipe):
        sizes += ["--self-prompts", "8", "--draft-vocab-size", "128"]
    run = ("-m", "specc", "train", model, "--recipe", recipe, "-o", output, *sizes)
    result = torchrun(*run, "--json")
    card = json.loads(result.stdout)
    assert card["updates"] == 2 and list(output.glob("*.safetensors"))
    again = torchrun(*run, check=False)
    assert again.returncode != 0
    assert f"{output} exists; choose another output, or --overwrite" in " ".join(again.stderr.split())


@pytest.mark.slow
def test_a_training_that_cannot_be_shared_out_is_refused(model: Path, tmp_path: Path) -> None:
    run = ("-m", "specc", "train", model, "--recipe", "judge-decoding", "-o", tmp_path / "judge")
    refused = torchrun(*run, check=False)
    assert refused.returncode != 0
    assert "the training of judge-decoding runs in one process; start it without torchrun" in refused.stderr


def test_alone_everything_stays_as_it_is() -> None:
    assert (processes.count(), processes.number(), processes.is_first()) == (1, 0, True)
    assert processes.share("abc") == processes.gather("abc") == ["a", "b", "c"]
    tensor = torch.ones(2)
    assert processes.mean(tensor) is tensor
    processes.check_alone("a training")


@pytest.fixture
def launcher(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Set the variables of a launcher of two processes, of which this is the second."""
    for name, value in {**dict.fromkeys(processes.NUMBERS, "1"), "WORLD_SIZE": "2", "MASTER_ADDR": "localhost"}.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def test_variables_of_a_launcher_that_are_missing_are_named(launcher: pytest.MonkeyPatch) -> None:
    launcher.delenv("RANK")
    launcher.setenv("MASTER_ADDR", "")
    with pytest.raises(HeadError, match="RANK, MASTER_ADDR not set, but other variables of torchrun are"):
        processes.place()


@pytest.mark.parametrize("name", [*processes.NUMBERS, "LOCAL_WORLD_SIZE"])
@pytest.mark.parametrize("value", ["one", "-1", "99999", "9" * 30])
def test_variables_of_a_launcher_that_are_no_numbers_are_named(
    name: str, value: str, launcher: pytest.MonkeyPatch
) -> None:
    launcher.setenv(name, value)
    with pytest.raises(HeadError, match=f"{name} is '{value}', and a number up to 65535 is needed; start the training"):
        processes.place()


@pytest.mark.parametrize("values", [{"RANK": "5"}, {"LOCAL_RANK": "2"}, {"WORLD_SIZE": "0"}, {"LOCAL_WORLD_SIZE": "0"}])
def test_numbers_of_a_launcher_that_do_not_fit_are_refused(
    values: dict[str, str], launcher: pytest.MonkeyPatch
) -> None:
    for name, value in values.items():
        launcher.setenv(name, value)
    with pytest.raises(HeadError, match="do not fit together"):
        processes.place()


def test_rubbish_of_another_launcher_does_not_disturb_a_training_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "abc")
    monkeypatch.setenv("RANK", "7")
    processes.use_threads()
    assert processes.place() is None


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("is_met", [False, True])
def test_processes_that_do_not_come_are_an_error_and_no_wait_without_end(
    number: int, is_met: bool, launcher: pytest.MonkeyPatch
) -> None:
    seconds = timedelta(seconds=1)
    meeting = TCPStore("localhost", 0, is_master=True, wait_for_workers=False, timeout=seconds)
    launcher.setenv("MASTER_PORT", str(meeting.port))
    launcher.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")  # The launcher holds the store, as torchrun does.
    if not is_met:
        del meeting
    launcher.setenv("RANK", str(number))
    launcher.setattr(processes, "JOINING", seconds)
    message = "1 of 2 processes have not come" if is_met else "cannot meet the other processes at localhost:"
    with pytest.raises(HeadError, match=message), processes.joined(torch.device("cpu")):
        pytest.fail("it joined")


def test_several_processes_cannot_name_one_gpu(launcher: pytest.MonkeyPatch) -> None:
    assert device_named("cpu") == torch.device("cpu")
    with pytest.raises(HeadError, match="several processes cannot train on cuda:0 together"):
        device_named("cuda:0")
    launcher.setattr(torch.cuda, "is_available", lambda: True)
    launcher.setattr(torch.cuda, "device_count", lambda: 2)
    assert device_named("auto") == device_named("cuda") == torch.device("cuda:1")
    launcher.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(HeadError, match="there is no device 'cuda:1' to train on"):
        device_named("auto")
