"""A safetensors file, mapped: the same bytes that the library itself reads."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from specc.runtime.engines.mapped_weights import tensors
from specc.runtime.errors import BundleError


@pytest.mark.torch
def test_each_tensor_has_its_type_its_shape_and_its_bytes(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    arrays = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array([1, 0, 1], np.int64), "c": np.float16(7)}
    save_file({n: np.asarray(a) for n, a in arrays.items()}, tmp_path / "w.safetensors", metadata={"format": "np"})
    mapped = tensors(tmp_path / "w.safetensors")
    assert {n: (t.dtype, t.shape) for n, t in mapped.items()} == {
        "a": ("F32", (2, 3)),
        "b": ("I64", (3,)),
        "c": ("F16", ()),
    }
    for name, array in arrays.items():
        assert mapped[name].data.tobytes() == np.asarray(array).tobytes()


def test_what_a_session_writes_stays_in_its_own_memory(tmp_path: Path) -> None:
    header = b'{"bias":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    file = tmp_path / "w.safetensors"
    content = len(header).to_bytes(8, "little") + header + np.array([100], np.float32).tobytes()
    file.write_bytes(content)
    tensors(file)["bias"].data[:] = 0
    assert file.read_bytes() == content


@pytest.mark.torch
def test_a_tensor_of_two_names_has_one_place(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    save_file(
        {"a": np.ones(3, np.float32)}, tmp_path / "w.safetensors", metadata={"b": "a", "c": "gone", "padding": " "}
    )
    mapped = tensors(tmp_path / "w.safetensors")
    assert set(mapped) == {"a", "b"} and mapped["b"] is mapped["a"]


ENTRY = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
HEADERS: dict[str, object] = {
    "no type": {"bias": {key: ENTRY[key] for key in ("shape", "data_offsets")}},
    "a type that is no text": {"bias": ENTRY | {"dtype": 1}},
    "a shape that is no list": {"bias": ENTRY | {"shape": 1}},
    "a length that is no number": {"bias": ENTRY | {"shape": ["1"]}},
    "one offset": {"bias": ENTRY | {"data_offsets": [0]}},
    "an offset that is no number": {"bias": ENTRY | {"data_offsets": ["0", 4]}},
    "data behind the end": {"bias": ENTRY | {"data_offsets": [0, 5]}},
    "data before the beginning": {"bias": ENTRY | {"data_offsets": [-4, 4]}},
    "an entry that is none": {"bias": []},
    "no object": [],
    "names that are no map": {"bias": ENTRY, "__metadata__": [1]},
}


def weights(header: object, directory: Path) -> Path:
    """Write a weights file with a header and four bytes of data."""
    file = directory / "w.safetensors"
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + bytes(4))
    return file


@pytest.mark.parametrize("kind", HEADERS)
def test_a_file_that_is_not_safetensors_is_named_in_one_line(kind: str, tmp_path: Path) -> None:
    assert tensors(weights({"bias": ENTRY}, tmp_path))["bias"].shape == (1,)
    file = weights(HEADERS[kind], tmp_path)
    with pytest.raises(
        BundleError, match=rf"^{re.escape(str(file))} is not safetensors \(.+\); compile the bundle again$"
    ):
        tensors(file)


@pytest.mark.parametrize("content", [b"", b"1234567", b"\xff" * 8, (1 << 60).to_bytes(8, "little") + b"{}"])
def test_a_file_that_is_too_short_is_named_in_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes(content)
    with pytest.raises(BundleError, match=r"w\.safetensors is not safetensors \(.+\); compile the bundle again$"):
        tensors(tmp_path / "w.safetensors")
