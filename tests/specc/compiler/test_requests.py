"""Which engines are built: their names, the types of their weights, and their widths."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from torch.fx import Graph, GraphModule

from specc.compiler import requests
from specc.compiler.graphs import PreparedGraph
from specc.compiler.options import Options
from specc.compiler.plans import choose_methods, plan_recipes
from specc.compiler.requests import EngineRequest, engine_requests, name_blocks, settle_widths, without_width
from specc.recipes import Facts, HeadFacts
from specc.recipes.defaults import WIDTHS
from specc.runtime.block import Block, Layers
from specc.runtime.tree import Tree

pytestmark = pytest.mark.torch


def options(*recipes: str, **changes: Any) -> Options:
    return Options(model="model", output="out", recipes=recipes, **changes)


def names(options: Options) -> dict[Block, str]:
    facts = Facts(layers=4, vocab_size=100, assistant=options.assistant_model is not None)
    return name_blocks(plan_recipes(choose_methods(options), facts, options))


def test_blocks_are_named_after_what_they_do() -> None:
    choice = options("prompt-lookup", "early-exit", "draft-model", "layer-skip", assistant_model="small")
    assert list(names(choice).values()) == [
        "prefill",
        "decode",
        "verify-chain-4",
        "verify-chain-6",
        "verify-chain-12",
        "verify-early-exit",
        "draft-early-exit",
        "assistant-draft",
        "assistant-prefill",
        "draft-layer-skip",
    ]


def test_trees_of_any_shape_are_named_by_their_slots_since_recipes_share_them() -> None:
    choice = options("eagle3-tree", "eagle3-lookup")
    facts = Facts(layers=4, vocab_size=100, heads={"eagle3": HeadFacts()})
    plans = plan_recipes(choose_methods(choice, ["eagle3"]), facts, choice)
    verify = [name for name in name_blocks(plans, heads=facts.heads).values() if name.startswith("verify")]
    assert verify == ["verify-tree-4", "verify-tree-6", "verify-tree-8", "verify-tree-12"]


def test_lanes_decode_and_verify_as_widely_as_a_recipe_does() -> None:
    choice = options("prompt-lookup", lanes=4)
    facts = Facts(layers=4, vocab_size=100)
    blocks = name_blocks(plan_recipes(choose_methods(choice), facts, choice), choice.lanes)
    lanes = {name: (block.lanes, block.slots) for block, name in blocks.items() if block.lanes > 1}
    widest = max(block.slots for block, name in blocks.items() if name.startswith("verify-chain"))
    assert lanes == {"decode-lanes": (4, 4), "verify-lanes": (4, 4 * widest)}
    assert not any("lanes" in name for name in names(options("prompt-lookup")).values())


def test_recipes_with_equal_blocks_share_an_engine() -> None:
    assert names(options("prompt-lookup")) == names(options("prompt-lookup", "recycled-lookup"))


def test_another_block_of_a_name_gets_the_recipe_as_well() -> None:
    """Both draft by the draft model: one a token at a time, one a level of a tree."""
    matches = names(options("draft-model", "dynamic-tree", assistant_model="small"))
    assert {"assistant-draft", "assistant-draft-dynamic-tree"} < set(matches.values())
    assert len(set(matches.values())) == len(matches)


def test_widths_to_tune_come_after_those_that_recipes_run() -> None:
    choice = options("prompt-lookup")
    matches = engine_requests(names(choice), choice)
    needed = [request.name for request in matches if request.needed]
    assert needed == ["prefill", "decode", "verify-chain-4", "verify-chain-6", "verify-chain-12"]
    assert [request.name for request in matches[: len(needed)]] == needed
    assert [request.block.slots for request in matches[len(needed) :]] == [
        n for n in WIDTHS.curve if n not in (4, 6, 12)
    ]


def test_each_backend_builds_each_block_in_its_own_type() -> None:
    choice = options(backends=("onnx", "tensorrt", "onnx"), dtype="bf16")
    matches = [(r.name, r.backend, r.block.weights) for r in engine_requests(names(choice), choice)][:4]
    assert matches == [
        ("prefill", "onnx", "fp32"),
        ("prefill", "tensorrt", "bf16"),
        ("decode", "onnx", "fp32"),
        ("decode", "tensorrt", "bf16"),
    ]


class OneFileBackend:
    """A backend that notes what it is asked, and makes one file of all chains in these types of weights."""

    def __init__(self, *types: str) -> None:
        self.types = types
        self.questions: list[tuple[GraphModule, Block]] = []

    def one_file_for_all_widths(self, graph: GraphModule, block: Block, options: object) -> bool:
        self.questions.append((graph, block))
        return block.weights in self.types and not block.last_row


def empty_graph() -> PreparedGraph:
    return PreparedGraph(GraphModule({}, Graph()), ())


def request(slots: int, *, needed: bool, weights: str = "int4", **changes: Any) -> EngineRequest:
    block = Block(Tree.chain(slots), weights=weights, **changes)
    return EngineRequest(name=f"chain-{slots}", backend="onnx", block=block, needed=needed)


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> OneFileBackend:
    double = OneFileBackend("int4")
    monkeypatch.setattr(requests, "backend", lambda name: double)
    return double


GRAPHS = {("target", "fp32"): empty_graph(), ("target", "int4"): empty_graph()}


def test_the_backend_is_asked_once_and_about_the_graph_with_the_weights_of_the_block(backend: OneFileBackend) -> None:
    """Before they were quantised, the answer would be about another graph."""
    settled = settle_widths([request(4, needed=True), request(6, needed=True, weights="bf16")], GRAPHS, options())
    assert [graph for graph, _ in backend.questions] == [
        GRAPHS["target", "int4"].graph,
        GRAPHS["target", "fp32"].graph,
    ]
    assert [block for _, block in backend.questions] == [r.block for r in settled]
    assert [r.any_width for r in settled] == [True, False]


@pytest.mark.parametrize(
    ("weights", "tune", "expected"),
    [("int4", False, True), ("fp32", False, False), ("fp32", True, True), ("int4", True, True)],
)
def test_a_width_to_tune_is_kept_where_it_costs_no_file_or_the_user_tunes(
    weights: str, tune: bool, expected: bool, backend: OneFileBackend
) -> None:
    both = [request(1, needed=True, weights=weights), request(32, needed=False, weights=weights)]
    settled = settle_widths(both, GRAPHS, options(tune=tune))
    assert [r.name for r in settled] == (["chain-1", "chain-32"] if expected else ["chain-1"])


def test_what_blocks_of_all_widths_have_in_common_is_all_but_the_chain() -> None:
    block = Block(Tree.chain(9), ("ids",), Layers(exit_after=2), weights="int4")
    assert without_width(block) == replace(block, topology=Tree.chain(1)) == without_width(without_width(block))
    assert without_width(block) != without_width(replace(block, weights="fp32"))
