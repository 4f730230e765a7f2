"""The control of the doubles: they refuse what the libraries lack."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from doubles.cuda import FakeCuda
from doubles.recorder import FunctionRecorder, Recorder, fitting, signatures


class Real:
    """A class as pybind11 documents it."""

    def set_address(self) -> None:
        """set_address(*args, **kwargs)
        Overloaded function.

        1. set_address(self: lib.Context, name: str, address: typing.SupportsInt) -> bool
        2. set_address(self: lib.Context, names: collections.abc.Sequence[str, int]) -> bool
        """


def test_signatures_are_read_from_docstrings() -> None:
    assert signatures(Real, "set_address") == [["str", "SupportsInt"], ["Sequence"]]


@pytest.mark.parametrize("args", [(1, "x"), ("x",), ("x", 1, 2)])
def test_a_call_that_fits_no_overload_is_refused(args: tuple[object, ...]) -> None:
    double = Recorder([], Real, {"set_address": lambda *a: True})
    with pytest.raises(AssertionError, match="fits none"):
        double.set_address(*args)
    assert double.set_address("x", 1) and double.set_address(["x"])
    assert double.calls == [("set_address", "x", 1), ("set_address", ["x"])]


def test_a_function_with_another_number_of_arguments_is_refused() -> None:
    def real() -> None:
        """cudaMalloc(size_t size)"""

    double = FunctionRecorder([], SimpleNamespace(cudaMalloc=real), {"cudaMalloc": lambda *a: (0, 1)})
    with pytest.raises(AssertionError, match="against cudaMalloc"):
        double.cudaMalloc(1, 2)
    assert double.cudaMalloc(8) == (0, 1)


def test_a_type_that_no_rule_names_takes_anything() -> None:
    assert fitting("Weights", object()) and not fitting("str", 1)


def test_tensorrts_own_signatures_are_checked_where_it_is_installed() -> None:
    trt = pytest.importorskip("tensorrt_rtx")
    context = Recorder(
        [], trt.IExecutionContext, {"set_tensor_address": lambda *a: True, "execute_async_v3": lambda *a: True}
    )
    for name, args in (("set_tensor_address", (1, "x")), ("set_tensor_address", ("x",)), ("execute_async_v3", ("s",))):
        with pytest.raises(AssertionError, match="fits none"):
            getattr(context, name)(*args)
    assert context.set_tensor_address("x", 1)


def test_fake_memory_begins_as_nan_and_cannot_be_copied_during_a_capture() -> None:
    cuda = FakeCuda()
    _, address = cuda.malloc(4)
    assert cuda.memory[address].tolist() == [0xFF] * 4
    cuda.begin_capture(77, 1)
    with pytest.raises(AssertionError, match="cannot be captured"):
        cuda.memcpy(address, address, 4, 1, 77)
