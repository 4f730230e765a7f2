"""ONNX files that a stranger made: what could crash or mislead ONNX Runtime never reaches it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from shell import copied, edit_manifest, refused

import specc
from specc.runtime.bundle import Bundle, open_bundle, sha256
from specc.runtime.engines.onnx_check import check
from specc.runtime.errors import BundleError

onnx = pytest.importorskip("onnx")
FROZEN = Path(__file__).parents[2] / "bundles/schema-1"
Edit = Callable[[Any], Any]


def external(model: Any) -> Any:
    """Return the first tensor that lies in the weights file."""
    return next(t for t in model.graph.initializer if t.external_data)


def place(**entries: str) -> Edit:
    """Change where the first weight lies."""

    def edit(model: Any) -> None:
        tensor = external(model)
        stored = {e.key: e.value for e in tensor.external_data} | entries
        del tensor.external_data[:]
        for key, value in stored.items():
            tensor.external_data.add(key=key, value=value)

    return edit


def inline(model: Any) -> Any:
    return next(t for t in model.graph.initializer if not t.external_data and t.raw_data)


def nest(depth: int) -> Edit:
    def edit(model: Any) -> None:
        graph = model.graph
        for _ in range(depth):
            node = graph.node.add(op_type="If")
            graph = node.attribute.add(name="then_branch", type=5).g

    return edit


def operator(name: str) -> Edit:
    return lambda model: model.graph.node.add(op_type=name)


EDITS: dict[str, tuple[Edit, str]] = {
    "weights in a file that is not listed": (place(location="other.bin"), "lies in 'other.bin', which the manifest"),
    "weights above the bundle": (place(location="../../etc/passwd"), "'../../etc/passwd', which the manifest does not"),
    "weights by an absolute name": (place(location="/etc/passwd"), "'/etc/passwd', which the manifest does not list"),
    "weights behind the end": (place(offset="528584"), "ends behind the end of 'weights.safetensors'"),
    "an offset below zero": (place(offset="-8"), "'-8' is not an offset or length"),
    "an offset of many digits": (place(offset="9" * 30), "is not an offset or length"),
    "another length": (place(length="8"), "has 8 bytes of data instead of"),
    "a copy packed for a kernel": (place(prepacked_0="MatMul|0;4;0"), "lies at ['length', 'location', 'offset', 'prep"),
    "an escape in a file name": (place(location="\x1b[2J"), r"\x1b[2J"),
    "a shape below zero": (lambda m: external(m).dims.__setitem__(0, -1), "has the shape [-1"),
    "a huge shape": (lambda m: external(m).dims.extend([2**62, 2**62]), "has the shape ["),
    "an unknown type": (lambda m: setattr(external(m), "data_type", 99), "has the unknown type 99"),
    "another type": (lambda m: setattr(external(m), "data_type", 11), "bytes of data instead of"),
    "inner data of another size": (lambda m: setattr(inline(m), "raw_data", b"abc"), "has 3 bytes of data instead of"),
    "no place": (
        lambda m: setattr(m.graph.initializer.add(name="w"), "data_location", 1),
        "does not say in which file",
    ),
    "an old IR": (lambda m: setattr(m, "ir_version", 0), "its IR version is 0"),
    "an IR of the future": (lambda m: setattr(m, "ir_version", 2**40), "its IR version is 1099511627776"),
    "a negative opset": (lambda m: m.opset_import.add(domain="", version=-3), "its opset is -3"),
    "functions": (lambda m: m.functions.add(name="f"), "has functions of its own"),
    "sparse weights": (lambda m: m.graph.sparse_initializer.add(), "has sparse weights"),
    "graphs in graphs": (nest(6), "graphs are nested more than 4 deep"),
    "graphs in graphs without end": (nest(60), "nested more than 4 deep|ecursion|parsing"),
    "a loop": (operator("Loop"), "has the operator Loop"),
    "a program of another runtime": (operator("EPContext"), "has the operator EPContext"),
}


def edited(tmp_path: Path, edit: Edit) -> Path:
    """Return a bundle whose engine `decode` is changed, and signed again."""
    bundle = copied(FROZEN, tmp_path)
    file = bundle / "decode.onnx"
    model = onnx.load(file, load_external_data=False)
    edit(model)
    file.write_bytes(model.SerializeToString())
    return signed(bundle, file)


def signed(bundle: Path, file: Path) -> Path:
    spec = {"bytes": file.stat().st_size, "sha256": sha256(file)}
    return edit_manifest(bundle, lambda m: m["files"].update({file.name: spec}))


@pytest.mark.parametrize(("edit", "named"), EDITS.values(), ids=EDITS)
def test_a_file_that_no_lowering_writes_is_refused_in_one_line(edit: Edit, named: str, tmp_path: Path) -> None:
    with pytest.raises(BundleError) as e:
        check(open_bundle(edited(tmp_path, edit)), "decode.onnx")
    assert any(part in str(e.value) for part in named.split("|")) and str(e.value).isprintable()


def test_the_command_line_refuses_it_before_onnx_runtime_reads_it(tmp_path: Path) -> None:
    """ONNX Runtime 1.32 reads the packed copy behind its end, which is a segmentation fault."""
    bundle = edited(tmp_path, place(prepacked_0="MatMul|0;4;0"))
    assert "decode.onnx: tensor" in refused("generate", bundle, "--prompt", "a", "--no-speculation")


@pytest.mark.parametrize("data", [b"", b"\xff" * 40, b"\x08\x0a" + b"\x3a\x80\x80\x80\x80\x01", b"junk"])
def test_a_file_that_is_not_onnx_is_refused_in_one_line(data: bytes, tmp_path: Path) -> None:
    bundle = copied(FROZEN, tmp_path)
    (bundle / "decode.onnx").write_bytes(data)
    with pytest.raises(BundleError, match=r"decode\.onnx: .*; compile the bundle again"):
        check(open_bundle(signed(bundle, bundle / "decode.onnx")), "decode.onnx")


def test_engines_that_share_a_file_check_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[str] = []

    def counted(bundle: Bundle, name: str) -> None:
        names.append(name)
        check(bundle, name)

    monkeypatch.setattr("specc.runtime.engines.onnx_check.check", counted)
    with specc.load(FROZEN) as model:
        specs = [spec for spec in model.engines.specs() if spec.block.lanes == 1]
        model.engines.load(*(spec.name for spec in specs))
        assert sorted(names) == sorted({spec.file for spec in specs}) and len(names) < len(specs)


def test_every_engine_of_a_bundle_passes() -> None:
    bundle: Bundle = open_bundle(FROZEN)
    names = [name for name in bundle.manifest.files if name.endswith(".onnx")]
    for name in names:
        check(bundle, name)
    assert len(names) == 11
