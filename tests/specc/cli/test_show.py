"""The verb `show`: the contents of a bundle as data and as tables."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from shell import copied, edit_manifest, fits, refused, specc

from specc.cli.show import bundle_tables, describe, drawing, join_runs, picture
from specc.runtime.bundle import open_bundle
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
    assert join_runs(layers) == text


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


def test_native_code_in_a_bundle_is_named(tmp_path: Path) -> None:
    frozen = copied(Path(__file__).parents[2] / "bundles/schema-1", tmp_path)
    assert specc("show", frozen, "--json").json["native_code"] == []
    assert "no native code" in specc("show", frozen).out
    assert "native code" not in specc("show", frozen, "--all").out
    edit_manifest(frozen, lambda m: [e.update(backend="inductor") for e in m["engines"]])
    assert specc("show", frozen, "--json").json["native_code"] == ["inductor"]
    for argv in ((), ("--all",)):
        assert "inductor" in specc("show", frozen, *argv).out
        assert "only with --allow-native-code" in " ".join(specc("show", frozen, *argv).out.split())


@pytest.mark.model
class TestBundle:
    def test_a_provisional_default_is_called_so(self, bundle: Path) -> None:
        """The bundle has three golden prompts, so its default rests on too little."""
        opened = open_bundle(bundle)
        for provisional in (True, False):
            changed = replace(opened, manifest=replace(opened.manifest, provisional=provisional))
            console = Console(width=200, file=None)
            with console.capture() as captured:
                console.print(bundle_tables(changed))
            assert (f"specc tune {bundle}" in captured.get()) is provisional
            assert describe(changed)["provisional"] is provisional

    def test_all_of_it_is_in_the_json(self, bundle: Path) -> None:
        report = specc("show", bundle, "--json").json
        assert report["model"]["layers"] == 3
        assert report["default_recipe"] in {r["name"] for r in report["recipes"]}
        assert {r["name"] for r in report["recipes"]} == {"plain", "prompt-lookup", "early-exit"}
        assert report["bytes"] == sum(f.stat().st_size for f in bundle.iterdir())
        assert report["files"].keys() == {f.name for f in bundle.iterdir()} - {"manifest.json"}
        engines = {e["name"]: e for e in report["engines"]}
        assert engines["decode"]["slots"] == 1
        assert engines["decode"]["layers"] == ["0", "1", "2"]
        assert engines["draft-early-exit"]["layers"] == ["0"]
        assert engines["verify-early-exit"]["topology"] == "tree"
        for e in report["engines"]:
            assert e["bytes"] == (bundle / e["file"]).stat().st_size
        cache = report["caches"]["target"]
        assert cache["bytes"] == cache["rows"] * 3 * 2 * 2 * 16 * 4

    def test_all_of_it_is_printed_on_demand(self, bundle: Path) -> None:
        report, out = specc("show", bundle, "--json").json, specc("show", bundle, "--all").out
        names = [*report["files"], *(row["name"] for row in (*report["recipes"], *report["engines"]))]
        assert all(name in out for name in names)

    def test_all_of_an_engine_is_in_the_json(self, bundle: Path) -> None:
        report = specc("show", bundle, "--engine", "verify-early-exit", "--json").json
        assert Tree(tuple(report["parents"])).paths == tuple(map(tuple, report["paths"]))
        assert any(p["name"].startswith("BakeTree") for p in report["passes"])
        fields = {"name", "changed", "nodes_before", "nodes_after", "seconds", "note"}
        assert all(p.keys() == fields for p in report["passes"])
        names = [t["name"] for t in report["inputs"]]
        assert names[:2] == ["input_ids", "past_len"]
        assert report["recipes"] == ["early-exit"]

    def test_an_engine_without_a_tree_has_none(self, bundle: Path) -> None:
        assert specc("show", bundle, "--engine", "draft-early-exit", "--json").json["parents"] is None

    def test_tree_and_mask_are_drawn(self, bundle: Path) -> None:
        report = specc("show", bundle, "--engine", "verify-early-exit", "--json").json
        out = specc("show", bundle, "--engine", "verify-early-exit").out
        assert picture(Tree(tuple(report["parents"])).mask) in out
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
    def test_itfits(self, columns: int, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("COLUMNS", str(columns))
        fits(specc("show", bundle).out, columns)
        fits(specc("show", bundle, "--all").out, columns)
        for engine in specc("show", bundle, "--json").json["engines"]:
            fits(specc("show", bundle, "--engine", engine["name"]).out, columns)
