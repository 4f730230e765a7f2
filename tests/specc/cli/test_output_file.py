"""A file that a command writes at its end is checked at its beginning."""

from __future__ import annotations

from pathlib import Path

import pytest
from shell import refused

from specc.cli.output_file import check_file
from specc.exactness import golden
from specc.runtime.bundle import Bundle
from specc.runtime.errors import RecipeError

FROZEN = Path(__file__).parents[2] / "bundles" / "schema-3"


def test_a_file_that_cannot_be_written_is_refused_and_one_that_can_is_not(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("old")
    for name in ("new", "old"):
        check_file(tmp_path / name, "--x")
    for path, reason in (
        (tmp_path / "nowhere" / "a", f"--x: there is no directory {tmp_path / 'nowhere'}; make it"),
        (tmp_path, "is not a file; name another one"),
        (Path("/dev/full"), "/dev/full is not a file; name another one"),
    ):
        with pytest.raises(RecipeError, match=reason):
            check_file(path, "--x")
    assert (tmp_path / "old").read_text() == "old" and not (tmp_path / "new").exists()


@pytest.mark.parametrize("options", [("--junit", "/nowhere/x.xml"), ("--junit", "/"), ("--reference", "")])
def test_specc_test_checks_what_it_will_need_before_it_reads_golden_cases(
    options: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(bundle: Bundle) -> None:
        raise AssertionError("the golden cases were read")

    monkeypatch.setattr(golden, "checked_cases", read)
    assert options[0] in refused("test", FROZEN, *options)
