"""What is inside a bundle, as data and drawn."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console
from shell import refused, specc

from specc.cli.show import compact, drawing, picture
from specc.recipes import METHODS
from specc.runtime.tree import Tree

TREE = Tree.from_paths([(0,), (1,), (0, 0), (0, 1), (0, 0, 0)])


@pytest.mark.parametrize(
    ("layers", "text"),
    [
        ([], ""),
        (["0"], "0"),
        (["0", "1", "2"], "0-2"),
        (["0", "1", "3"], "0-1, 3"),
        (["0", "1.attention", "1.mlp", "2"], "0, 1.attention, 1.mlp, 2"),
        (["0", "1", "6.attention", "7", "8"], "0-1, 6.attention, 7-8"),
    ],
)
def test_runs_of_layers_are_joined(layers: list[str], text: str) -> None:
    assert compact(layers) == text


def test_a_mask_is_drawn_a_character_a_slot() -> None:
    assert picture(TREE.mask).split() == ["█·····", "██····", "█·█···", "██·█··", "██··█·", "██·█·█"]


def test_a_tree_is_drawn_a_line_a_slot() -> None:
    console = Console(width=60, file=None)
    with console.capture() as captured:
        console.print(drawing(TREE))
    assert [line.rstrip() for line in captured.get().splitlines()] == [
        "0  pending token",
        "├── 1 (0)",
        "│   ├── 3 (0, 0)",
        "│   │   └── 5 (0, 0, 0)",
        "│   └── 4 (0, 1)",
        "└── 2 (1)",
    ]


def test_recipes_are_those_of_the_table() -> None:
    told = specc("recipes", "--json").json
    keys = {"name", "title", "paper", "drafter", "acceptance", "topology", "lossless", "needs", "parameters"}
    assert all(r.keys() == keys for r in told)
    assert [r["name"] for r in told] == list(METHODS)
    for r in told:
        assert [p["name"] for p in r["parameters"]] == list(METHODS[r["name"]].parameters)
        assert all(p.keys() == {"name", "default", "help"} for p in r["parameters"])


@pytest.mark.parametrize("name", METHODS)
def test_a_recipe_is_shown_with_all_that_it_takes(name: str) -> None:
    ran = specc("recipes", name)
    assert ran.status == 0
    assert METHODS[name].title in ran.out
    assert all(parameter in ran.out for parameter in METHODS[name].parameters)
    assert specc("recipes", name, "--json").json == [r for r in specc("recipes", "--json").json if r["name"] == name]


def test_an_unknown_recipe_names_the_nearest() -> None:
    assert refused("recipes", "prompt-lokup") == "no recipe 'prompt-lokup'; did you mean 'prompt-lookup'?"


@pytest.mark.parametrize("columns", [80, 140])
def test_the_recipes_fit(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    _fits(specc("recipes").out, columns)
    for name in METHODS:
        _fits(specc("recipes", name).out, columns)


@pytest.mark.model
class TestBundle:
    def test_it_is_told_whole(self, bundle: Path) -> None:
        told = specc("show", bundle, "--json").json
        assert told["model"]["layers"] == 3
        assert told["default_recipe"] in {r["name"] for r in told["recipes"]}
        assert {r["name"] for r in told["recipes"]} == {"plain", "prompt-lookup", "early-exit"}
        assert told["bytes"] == sum(f.stat().st_size for f in bundle.iterdir())
        assert told["files"].keys() == {f.name for f in bundle.iterdir()} - {"manifest.json"}
        engines = {e["name"]: e for e in told["engines"]}
        assert engines["decode"]["slots"] == 1
        assert engines["decode"]["layers"] == ["0", "1", "2"]
        assert engines["draft-early-exit"]["layers"] == ["0"]
        assert engines["verify-early-exit"]["topology"] == "tree"
        for e in told["engines"]:
            assert e["bytes"] == (bundle / e["file"]).stat().st_size
        cache = told["caches"]["target"]
        assert cache["bytes"] == cache["rows"] * 3 * 2 * 2 * 16 * 4

    def test_an_engine_is_told_whole(self, bundle: Path) -> None:
        told = specc("show", bundle, "--engine", "verify-early-exit", "--json").json
        assert Tree(tuple(told["parents"])).paths == tuple(map(tuple, told["paths"]))
        assert any(p["name"].startswith("BakeTree") for p in told["passes"])
        assert all(p.keys() == {"name", "changed", "nodes_before", "nodes_after", "seconds"} for p in told["passes"])
        names = [t["name"] for t in told["inputs"]]
        assert names[:2] == ["input_ids", "past_len"]
        assert told["recipes"] == ["early-exit"]

    def test_an_engine_without_a_tree_has_none(self, bundle: Path) -> None:
        assert specc("show", bundle, "--engine", "draft-early-exit", "--json").json["parents"] is None

    def test_tree_and_mask_are_drawn(self, bundle: Path) -> None:
        told = specc("show", bundle, "--engine", "verify-early-exit", "--json").json
        out = specc("show", bundle, "--engine", "verify-early-exit").out
        assert picture(Tree(tuple(told["parents"])).mask) in out
        assert "pending token" in out
        assert "past_key_values.* (6)" in out

    def test_a_chain_is_not_drawn(self, bundle: Path) -> None:
        out = specc("show", bundle, "--engine", "prefill").out
        assert "chain of 64" in out
        assert "█" not in out

    def test_an_unknown_engine_is_refused(self, bundle: Path) -> None:
        line = refused("show", bundle, "--engine", "verify")
        assert "no engine 'verify', only prefill, decode" in line

    @pytest.mark.parametrize("columns", [80, 140])
    def test_it_fits(self, columns: int, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("COLUMNS", str(columns))
        _fits(specc("show", bundle).out, columns)
        _fits(specc("test", bundle).out, columns)
        for engine in specc("show", bundle, "--json").json["engines"]:
            _fits(specc("show", bundle, "--engine", engine["name"]).out, columns)


def _fits(text: str, columns: int) -> None:
    assert text
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= columns
