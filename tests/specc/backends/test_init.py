"""The table of backends, the types of weights, and the defaults of the protocol."""

from __future__ import annotations

from pathlib import Path

import pytest
from graphs import prepared
from torch.fx import GraphModule

from specc.backends import BACKENDS, DEFAULT, Backend, Built, Options, backend, check, check_blocks, typed
from specc.runtime.block import Block, Layers
from specc.runtime.errors import BackendError, RecipeError
from specc.runtime.manifest import EngineSpec
from specc.runtime.tree import Tree

pytestmark = pytest.mark.torch


class Minimal(Backend):
    """A backend with nothing but what it must have."""

    suffix = ".min"
    types = ("fp16", "int8")

    def build(
        self, graph: GraphModule, block: Block, weights: Path, prefix: str, file: Path, options: Options = DEFAULT
    ) -> Built:
        return Built((), ())

    def requirements(self) -> list[str]:
        return ["a thing is missing; install it", "another is missing"]


CHAIN = Block(Tree.chain(1))
SPEC = EngineSpec(name="decode", backend="minimal", file="d", block=CHAIN, layers=(), inputs=(), outputs=(), passes=())


def test_a_backend_builds_one_engine_at_a_time_and_a_file_for_each_width_unless_it_says_otherwise() -> None:
    minimal = Minimal()
    assert not minimal.builds_in_parallel and not minimal.one_file_for_all_widths(prepared("llama"), CHAIN)
    error = "backend minimal writes a file for each width, so wide needs a file of its own"
    with pytest.raises(BackendError, match=error):
        minimal.engine_at(SPEC, "wide", Block(Tree.chain(3)))
    result = Built((), ())
    assert (dict(result.needs), result.commit) == ({}, "")


@pytest.mark.parametrize("name", BACKENDS)
def test_every_backend_of_the_table_has_a_suffix_and_types(name: str) -> None:
    builder = backend(name)
    assert Backend in type(builder).__mro__ and builder.suffix.startswith(".") and builder.types
    assert builder.builds_in_parallel is (name == "onnx")


def test_suffixes_differ() -> None:
    suffixes = [backend(name).suffix for name in BACKENDS]
    assert len(set(suffixes)) == len(suffixes)


def test_an_unknown_backend_or_lowering_is_named_with_those_that_there_are() -> None:
    with pytest.raises(BackendError, match="no backend 'abacus'; there are onnx, inductor"):
        backend("abacus")
    with pytest.raises(BackendError, match="unknown lowering 'slow'; there are fast, portable"):
        Options("slow")


@pytest.fixture
def minimal(monkeypatch: pytest.MonkeyPatch) -> Minimal:
    """Put a backend into the table."""
    monkeypatch.setitem(BACKENDS, "minimal", "onnx:MINIMAL")
    builder = Minimal()
    monkeypatch.setattr("specc.backends.onnx.MINIMAL", builder, raising=False)
    return builder


@pytest.mark.usefixtures("minimal")
def test_what_is_missing_is_said_before_which_types_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    check(["onnx"], "fp16")
    with pytest.raises(BackendError, match=r"^backend minimal cannot build here: a thing is missing; install it$"):
        check(["onnx", "minimal"], "bf16")
    monkeypatch.setattr(Minimal, "requirements", lambda self: [])
    with pytest.raises(BackendError, match=r"^backend minimal has no bf16; it has fp16, int8$"):
        check(["onnx", "minimal"], "bf16")
    check(["minimal"], "int8")
    check(["minimal"])


PORTABLE = Options("portable")


@pytest.mark.parametrize(
    ("weights", "name", "names", "dtype", "options", "expected"),
    [
        ("fp32", "onnx", ["onnx"], None, DEFAULT, "fp32"),
        ("fp32", "onnx", ["onnx"], "fp16", DEFAULT, "fp16"),
        ("fp32", "onnx", ["onnx", "onnx"], "fp16", DEFAULT, "fp16"),
        ("fp32", "onnx", ["onnx", "minimal"], "fp16", DEFAULT, "fp32"),  # so that the CPU can run it
        ("fp32", "minimal", ["onnx", "minimal"], None, DEFAULT, "fp16"),
        ("fp32", "minimal", ["onnx", "minimal"], "int8", DEFAULT, "int8"),
        ("int4", "onnx", ["onnx"], None, DEFAULT, "int4"),
        ("int4", "onnx", ["onnx"], "int8", DEFAULT, "int4"),
        ("int4", "onnx", ["onnx"], "fp16", DEFAULT, "fp16"),  # no rows in half precision beside few bits
        ("int4", "onnx", ["onnx"], "bf16", DEFAULT, "bf16"),
        ("int8", "onnx", ["onnx"], "bf16", DEFAULT, "bf16"),
        ("int4", "onnx", ["onnx", "minimal"], "fp16", DEFAULT, "int4"),
        ("int4", "onnx", ["onnx"], None, PORTABLE, "fp32"),
        ("int8", "onnx", ["onnx"], None, PORTABLE, "fp32"),
        ("fp16", "onnx", ["onnx"], None, PORTABLE, "fp16"),
        ("int4", "minimal", ["minimal"], None, DEFAULT, "fp16"),  # which has no such type
        ("int8", "minimal", ["minimal"], None, DEFAULT, "int8"),
    ],
)
@pytest.mark.usefixtures("minimal")
def test_a_block_gets_weights_of_a_type_that_its_backend_builds(
    weights: str, name: str, names: list[str], dtype: str | None, options: Options, expected: str
) -> None:
    assert typed(Block(Tree.chain(1), weights=weights), name, names, dtype, options).weights == expected


def test_trained_heads_are_refused_by_name_where_a_backend_has_none() -> None:
    check(["onnx"], heads=True)
    with pytest.raises(
        BackendError, match="backend inductor builds no trained heads; leave out --head, or give --back"
    ):
        check(["onnx", "inductor"], heads=True)


def test_lanes_are_refused_by_name_where_a_backend_has_none_and_out_of_range() -> None:
    check(["onnx"], lanes=8)
    with pytest.raises(BackendError, match="backend inductor builds no engines with lanes; leave out --lanes"):
        check(["onnx", "inductor"], lanes=2)
    with pytest.raises(RecipeError, match="lanes is 0; give 1 to 256"):
        check(["onnx"], lanes=0)


@pytest.mark.parametrize("name", ["inductor", "tensorrt-rtx"])
@pytest.mark.parametrize(
    ("block", "what"),
    [
        (Block(Tree.chain(1), quantized_group=8), "reads rows in 4 bits"),
        (Block(Tree.chain(1), layers=Layers(start_after=2), inputs=("hidden",)), "starts from hidden states"),
        (Block(Tree.chain(1), inputs=("state", "loop")), "starts from hidden states"),
    ],
)
def test_a_backend_without_a_kind_of_block_is_refused_by_the_name_of_the_recipe(
    name: str, block: Block, what: str
) -> None:
    if name == "tensorrt-rtx":
        pytest.importorskip("tensorrt_rtx")
    fine, gpu = Block(Tree.chain(1), layers=Layers(exit_after=2)), Options(compute_capability="8.9")
    check_blocks([name], "early-exit", [fine], options=gpu)
    check_blocks(["onnx"], "mine", [block])
    with pytest.raises(BackendError, match=f"recipe mine {what}, and backend {name} builds no such engines; leave"):
        check_blocks(["onnx", name], "mine", [block])
