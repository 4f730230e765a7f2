"""The runtime of examples/minimal_runtime.py replays the frozen bundle, and finds what was changed."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from bad_bundles import KINDS
from shell import copied, edit_golden, edit_manifest

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "examples" / "minimal_runtime.py"
BUNDLE = ROOT / "tests" / "bundles" / "schema-3"
LINES = 150  # that are not blank: it is to be read in one go


def run(*arguments: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    """Run the program, and return what it ends with: whether a recipe diverged, or 2."""
    monkeypatch.setattr(sys, "argv", ["minimal_runtime.py", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(PROGRAM), run_name="__main__")
    return end.value.code


@pytest.fixture
def refusal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Return a function that runs the program, and returns the one line with which it refuses its arguments."""

    def refused(*arguments: Path) -> str:
        assert run(*arguments, monkeypatch=monkeypatch) == 2
        output, line = capsys.readouterr()
        assert not output and line.startswith("error: ") and line.count("\n") == 1
        return line

    return refused


def test_it_replays_the_golden_outputs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(BUNDLE, monkeypatch=monkeypatch) is False
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert {name for name, verdict in lines.items() if verdict == "4 identical"} == {"plain", "prompt-lookup"}
    assert lines["lookahead"] == "not replayed: this runtime lacks lookahead, version 1"
    assert len(lines) == 11


def test_a_version_that_it_lacks_is_another_algorithm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = edit_manifest(copied(BUNDLE, tmp_path), lambda m: m["recipes"][1].update(acceptance_version=2))
    assert run(bundle, monkeypatch=monkeypatch) is False
    assert "prompt-lookup        not replayed: this runtime lacks match, version 2\n" in capsys.readouterr().out


@pytest.mark.model
def test_it_replays_trees(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from quick_compile import compile_quickly

    from specc.backends import Options as BuildOptions
    from specc.compiler import Options

    output = tmp_path / "trees.specc"
    build = BuildOptions("fast")  # also where specc-kernels is there
    options = Options(model=str(model), output=output, recipes=("token-recycling",), golden_tokens=16, build=build)
    compile_quickly(options)
    assert run(output, monkeypatch=monkeypatch) is False
    verdicts = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert set(verdicts) == {"plain", "token-recycling"}
    assert all("identical" in verdict and "diverged" not in verdict for verdict in verdicts.values())


def test_another_golden_token_is_a_divergence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def change(cases: list[dict[str, list[int]]]) -> None:
        cases[0]["token_ids"][2] ^= 1

    assert run(edit_golden(copied(BUNDLE, tmp_path), change), monkeypatch=monkeypatch) is True
    assert capsys.readouterr().out.count("3 identical") == 2


@pytest.mark.parametrize("name", ["manifest.json", "weights.safetensors", "decode.onnx"])
def test_a_changed_file_is_named(name: str, tmp_path: Path, refusal: Callable[..., str]) -> None:
    file = copied(BUNDLE, tmp_path) / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert "was changed" in refusal(file.parent)


@pytest.mark.parametrize("name", ["weights.safetensors", "decode.onnx", "golden.jsonl"])
def test_a_file_that_the_manifest_does_not_list_is_not_read(
    name: str, tmp_path: Path, refusal: Callable[..., str]
) -> None:
    bundle = edit_manifest(copied(BUNDLE, tmp_path), lambda m: m["files"].pop(name))
    assert f"{bundle / name} was changed, or is not in the manifest; compile" in refusal(bundle)


@pytest.mark.parametrize("kind", KINDS)
def test_a_bundle_that_cannot_be_used_is_one_line_and_status_2(
    kind: str, tmp_path: Path, refusal: Callable[..., str]
) -> None:
    damage, reason = KINDS[kind]
    bundle = copied(BUNDLE, tmp_path)
    damage(bundle)
    reason = "" if kind == "cut weights" else reason  # The line is ONNX Runtime's, which names a tensor.
    assert reason in refusal(bundle)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 4}, "has schema 4, and this runtime reads 2 and 3; use a newer runtime\n"),
        ({"default_recipe": "nope"}, "lacks its default recipe 'nope'; compile it again\n"),
        ({"near_tie_tolerance": 2}, "has the tolerance 2, not one of 0 to 1; compile it again\n"),
    ],
)
def test_a_line_names_the_value_that_is_wrong_and_what_helps(
    change: dict[str, object], message: str, tmp_path: Path, refusal: Callable[..., str]
) -> None:
    assert refusal(edit_manifest(copied(BUNDLE, tmp_path), lambda m: m.update(change))).endswith(message)


def test_an_interrupt_ends_it_with_status_130_and_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("onnxruntime.InferenceSession", interrupt)
    assert run(BUNDLE, monkeypatch=monkeypatch) == 130 and capsys.readouterr() == ("", "")


def test_arguments_that_name_no_bundle_are_one_line_and_status_2(refusal: Callable[..., str]) -> None:
    for arguments in ((), (BUNDLE, BUNDLE)):
        assert refusal(*arguments).endswith("give one bundle: python examples/minimal_runtime.py BUNDLE\n")


def test_it_is_short_and_needs_nothing_of_specc() -> None:
    text = PROGRAM.read_text(encoding="utf-8")
    assert sum(1 for line in text.splitlines() if line.strip()) <= LINES
    assert "import specc" not in text and "from specc" not in text
