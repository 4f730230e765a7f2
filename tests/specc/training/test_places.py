"""Where a training writes."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from specc.runtime.errors import HeadError
from specc.training.places import CARD, NOTES, Places

OWNER = {"recipe": "eagle3", "model": "small", "seed": "0"}


def places(directory: Path, output: str = "out", work: str = "work", overwrite: bool = True, **sources: Path) -> Places:
    there = {f"--{name}": place for name, place in sources.items()}
    return Places.of(directory / output, directory / work, overwrite, there)


def head_at(directory: Path) -> Path:
    """Make a directory as a training writes it."""
    directory.mkdir(parents=True)
    (directory / CARD).write_text("{}")
    return directory


def test_new_places_pass_and_so_does_a_head_that_may_be_replaced(tmp_path: Path) -> None:
    places(tmp_path, overwrite=False).check()
    head_at(tmp_path / "out")
    places(tmp_path).check()
    with pytest.raises(HeadError, match=r"out exists; choose another output, or --overwrite"):
        places(tmp_path, overwrite=False).check()


def test_what_no_training_wrote_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "diary.txt").write_text("dear")
    (tmp_path / "file").write_text("text")
    for name in ("out", "file"):
        with pytest.raises(HeadError, match=f"{name} exists and 'specc train' did not write it; choose another output"):
            places(tmp_path, name).check()


@pytest.mark.parametrize("inside", ["out", "out/part"])
def test_an_output_that_holds_what_the_training_reads_or_its_work_is_refused(tmp_path: Path, inside: str) -> None:
    head_at(tmp_path / "out")
    (tmp_path / inside).mkdir(exist_ok=True)
    with pytest.raises(HeadError, match=f"is or holds --head .*{inside}, which would be deleted"):
        places(tmp_path, head=tmp_path / inside).check()
    with pytest.raises(HeadError, match=r"is or holds --work .*, which would be deleted"):
        places(tmp_path, work=inside).check()
    places(tmp_path, head=head_at(tmp_path / "outside")).check()


@pytest.mark.parametrize("name", [".", "/", "", ".."])
def test_an_output_without_a_name_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(HeadError, match="names no new directory; give --output a name"):
        Places(output=Path(name), work=tmp_path).check()


@pytest.mark.parametrize("target", ["there", "nowhere"])
def test_a_symbolic_link_is_no_output(tmp_path: Path, target: str) -> None:
    head_at(tmp_path / "there")
    (tmp_path / "out").symlink_to(tmp_path / target)
    with pytest.raises(HeadError, match="out is a symbolic link; name the directory itself"):
        places(tmp_path).check()


@pytest.mark.parametrize("option", ["output", "work"])
def test_a_place_below_a_file_is_refused(tmp_path: Path, option: str) -> None:
    (tmp_path / "file").write_text("text")
    with pytest.raises(HeadError, match=f"--{option} .*file/below cannot be made: .*file is no directory"):
        places(tmp_path, **{option: "file/below"}).check()  # type: ignore[arg-type]  # mypy takes it for a source


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_place_that_may_not_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(HeadError, match="closed may not be written; choose another place"):
        places(tmp_path, "closed/out").check()


def test_what_comes_to_the_outputs_place_meanwhile_is_kept_and_the_work_too(tmp_path: Path) -> None:
    choice = places(tmp_path, overwrite=False)
    choice.check()
    choice.check_again()
    head_at(tmp_path / "out")
    with pytest.raises(HeadError, match=r"out exists.*nothing is lost: with --work .*work the same command goes on"):
        choice.check_again()


def test_a_work_folder_is_of_one_training(tmp_path: Path) -> None:
    choice = places(tmp_path)
    for _ in range(2):
        choice.take(OWNER)
    assert json.loads((tmp_path / "work" / NOTES).read_text()) == OWNER
    for name, value in {"recipe": "medusa", "model": "large", "seed": "1"}.items():
        with pytest.raises(HeadError, match=f"work is of another training \\({name} {OWNER[name]}\\); choose another"):
            choice.take({**OWNER, name: value})


@pytest.mark.parametrize("notes", ["", "[1]", "{"])
def test_a_work_folder_without_notes_or_with_damaged_ones_is_taken(tmp_path: Path, notes: str) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / NOTES).write_text(notes)
    places(tmp_path).take(OWNER)
    assert json.loads((tmp_path / "work" / NOTES).read_text()) == OWNER
