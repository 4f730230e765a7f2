"""A safetensors file, mapped: the same bytes that the library itself reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from specc.runtime.engines.mapped_weights import tensors


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
