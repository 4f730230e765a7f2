"""Engines with lanes on ONNX Runtime's CPU: one file, bound anew for each number of slots, over any sequences' rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np

from ..errors import backend_errors
from ..manifest import EngineSpec, Tensor
from .onnx_runtime import ort
from .ort_cpu import DTYPES, HostKV
from .ort_remedies import refused_call

Bind = Callable[[str, Any], None]


class OrtLanes:
    """A session with lanes. Lanes that no sequence uses share rows of their own.

    Attributes:
        most: the largest number of slots that a run may have.
        any_width: whether the file runs any number of slots up to that.
        inputs: the arrays of the inputs at that number of slots.
        outputs: the arrays of the outputs at that number of slots.
    """

    def __init__(self, session: ort.InferenceSession, spec: EngineSpec, spare: HostKV) -> None:
        """Bind the session to new arrays.

        Args:
            session: the loaded file.
            spec: the engine. A run has its number of slots at most.
            spare: rows that no sequence uses.
        """
        self.session, self.most = session, spec.block.slots
        (tokens,) = (value for value in session.get_inputs() if value.name == "input_ids")
        self.any_width = isinstance(tokens.shape[1], str)
        self._spec, self._spare = spec, spare
        self._stores = [spare] * spec.block.lanes
        tensors = [t for t in (*spec.inputs, *spec.outputs) if not _is_row(t)]
        self._arrays: dict[str, np.ndarray] = {t.name: np.zeros(t.shape, DTYPES[t.dtype]) for t in tensors}
        self._arrays["widths"][:] = spec.block.topology.slots
        self._bound: dict[int, _Bound] = {}
        self.inputs = {t.name: self._arrays[t.name] for t in spec.inputs if not _is_row(t)}
        self.outputs = {t.name: self._arrays[t.name] for t in spec.outputs if not _is_row(t)}

    def bind(self, stores: Sequence[HostKV | None]) -> None:
        """Say whose rows each lane reads and writes from now on; None stands for the spare rows."""
        self._stores = [store or self._spare for store in stores]

    def arrays(self, slots: int) -> dict[str, np.ndarray]:
        """Return the arrays of the inputs and outputs, by name, at so many slots: the first ones of the largest."""
        return self._at(slots).arrays

    def run(self, slots: int | None = None) -> None:
        """Read the inputs at so many slots, update the lanes' rows in place, write the outputs."""
        bound = self._at(self.most if slots is None else slots)
        for lane, store in enumerate(self._stores):
            bound.bind_lane(lane, store)
        with backend_errors(refused_call):
            self.session.run_with_iobinding(bound.binding)

    def _at(self, slots: int) -> _Bound:
        if slots not in self._bound:
            arrays = {name: self._first(array, slots) for name, array in self._arrays.items()}
            self._bound[slots] = _Bound(self.session, self._spec, arrays)
        return self._bound[slots]

    def _first(self, array: np.ndarray, slots: int) -> np.ndarray:
        """Return a view of the first slots of an array, which lie side by side; all of it if it has no slots."""
        if slots == self.most or array.ndim < 2 or array.shape[1] != self.most:
            return array
        shape = (1, slots, *array.shape[2:])
        return array.reshape(-1)[: prod(shape)].reshape(shape)


class _Bound:
    """The buffers that a session is bound to at one number of slots.

    Attributes:
        arrays: inputs and outputs by name.
        binding: what the session runs with.
    """

    def __init__(self, session: ort.InferenceSession, spec: EngineSpec, arrays: dict[str, np.ndarray]) -> None:
        self.arrays, self.binding = arrays, session.io_binding()
        self._stores: list[HostKV | None] = [None] * spec.block.lanes
        self._rows: list[list[tuple[Bind, str, str]]] = [[] for _ in self._stores]
        self._values = {name: ort.OrtValue.ortvalue_from_numpy(array) for name, array in arrays.items()}
        for tensors, bind in (
            (spec.inputs, self.binding.bind_ortvalue_input),
            (spec.outputs, self.binding.bind_ortvalue_output),
        ):
            for tensor in tensors:
                if _is_row(tensor):
                    _, lane, row = tensor.name.split(".", 2)
                    self._rows[int(lane)].append((bind, tensor.name, row))
                else:
                    bind(tensor.name, self._values[tensor.name])

    def bind_lane(self, lane: int, store: HostKV) -> None:
        """Bind a lane's part of the caches to rows, unless it is bound to them. Present and past are one buffer."""
        if self._stores[lane] is store:
            return
        for bind, name, row in self._rows[lane]:
            bind(name, store.values[row])
        self._stores[lane] = store


def _is_row(tensor: Tensor) -> bool:
    return tensor.name.startswith(("past_key_values.", "present."))
