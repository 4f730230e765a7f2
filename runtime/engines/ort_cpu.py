"""Engines of ONNX Runtime on the CPU: inputs and outputs are bound once, and caches are updated in place."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from math import ceil

import numpy as np

from ..device import CPU, Device
from ..errors import backend_errors
from ..manifest import CacheSpec, EngineSpec
from ..quantized_rows import COUNT, QuantizedRows
from ..sequence import KVStore, Rows, displaced
from .host_memory import HostArray
from .onnx_runtime import FATAL, ort
from .ort_remedies import refused_call

DTYPES = {"int64": np.int64, "float32": np.float32, "bool": np.bool_, "int32": np.int32,
          "float16": np.float16, "uint8": np.uint8}  # fmt: skip
# How long a thread waits awake for work before it sleeps: about what passes between two steps. ONNX Runtime's own 50 ms
# take a core from whoever runs next; with 0 every step wakes the threads anew.
# Measured on two cores of a Xeon (AVX-512), ONNX Runtime 1.31; benchmarks/LOG.md has other values.
# Measure anew: specc bench build/demo.specc --rounds 31, with one value and the other.
SPIN_MICROSECONDS = 80
# Pages of a cache are small until more than this share of its rows is filled. Small pages save memory, and attention
# over many rows is slower in them: a decode step of SmolLM2-135M takes 1.02 times as long after 256 rows, and 1.08 to
# 1.26 times after 1024.
# Measure anew: python benchmarks/bench_memory.py BUNDLE.
SMALL_PAGES = 0.25
# While this share of the rows is filled next, small pages become huge ones, a part in each step. To join all pages of a
# cache of SmolLM2-135M in one step takes up to 0.25 s, and the other requests would wait so long.
JOINED_OVER = 0.125


class HostKV(Rows):
    """Rows of one cache in host memory: for each shape of a layer's keys one array [tensors, heads, capacity, size].

    Attributes:
        capacity: rows.
        spec: the cache's shapes, of which another sequence's rows can be made.
        arrays: the arrays.
        values: the tensors [1, heads, capacity, size] as engines bind them, by names such as 0.key.
    """

    def __init__(self, spec: CacheSpec, memory: type[HostArray] = HostArray) -> None:
        """Make rows that are all zero.

        Args:
            spec: the cache's shapes.
            memory: makes the arrays.
        """
        self.capacity, self.spec = spec.capacity, spec
        by_shape: defaultdict[tuple[int, int], list[str]] = defaultdict(list)
        for layer, shape in spec.layers.items():
            by_shape[shape[0], shape[1]] += [f"{layer}.key", f"{layer}.value"]
        self._memory: list[HostArray] = []
        self._small = int(spec.capacity * SMALL_PAGES)  # Until so many rows are filled, pages are small.
        self.values: dict[str, ort.OrtValue] = {}
        self._names = list(by_shape.values())
        for (heads, size), names in by_shape.items():
            array = memory((len(names), heads, spec.capacity, size), DTYPES[spec.dtype])
            self._memory.append(array)
            for i, name in enumerate(names):
                self.values[name] = ort.OrtValue.ortvalue_from_numpy(array.values[i : i + 1])
        self.arrays = [array.values for array in self._memory]
        self._committed = 0
        self._copies: dict[int, list[QuantizedRows]] = {}  # By the rows of a group, those of each shape.
        self._filled = 0  # The most rows that were ever filled.
        self._pages = sum(array.separate for array in self._memory)
        self._separate, self._share = self._pages > 0, self._pages / (JOINED_OVER * spec.capacity)

    def commit(self, start: int, slots: Sequence[int]) -> None:
        """Copy the rows of slots behind row `start`, ascending, to consecutive rows from `start` on."""
        if displaced(slots):
            for array in self.arrays:
                for to, slot in enumerate(slots):
                    if to != slot:
                        array[:, :, start + to] = array[:, :, start + slot]
        end = start + len(slots)
        if self._copies:
            self.rewind(start)
        self._committed = end
        self._filled = max(self._filled, end)
        if self._separate and end > self._small:
            self._join_pages(len(slots))

    def copy(self, source: KVStore, rows: int) -> int:
        """Replace all rows by the first `rows` ones of another store in host memory. One of other shapes gives none."""
        if not isinstance(source, HostKV) or source.spec != self.spec:
            return 0
        for array, other in zip(self.arrays, source.arrays, strict=True):
            array[:, :, :rows] = other[:, :, :rows]
        self.rewind(0)
        self._committed = rows
        self._filled = max(self._filled, rows)
        return rows

    def rewind(self, rows: int) -> int:
        """Return `rows`: the rows behind them become scratch as they are, and have no codes any more."""
        self._committed = min(self._committed, rows)
        for copies in self._copies.values():
            for copy in copies:
                copy.rewind(rows)
        return rows

    def add_copy(self, group: int, bits: int = 4) -> dict[str, ort.OrtValue]:
        """Keep a copy in 4 bits beside the rows, or in 8, and return its tensors by names such as 0.key.codes.

        Args:
            group: rows of a group.
            bits: 4 or 8. One copy serves readers of both.
        """
        if group not in self._copies:
            pairs = zip(self._names, self.arrays, strict=True)
            self._copies[group] = [QuantizedRows(names, rows, group) for names, rows in pairs]
        if bits == 8:
            for copy in self._copies[group]:
                copy.keep_lower()
        return {
            f"{name}.{part}": ort.OrtValue.ortvalue_from_numpy(array)
            for copy in self._copies[group]
            for name, parts in copy.values.items()
            for part, array in parts.items()
        }

    def follow(self, group: int) -> int:
        """Round the committed rows that are due in a copy, and return how many have codes."""
        return max([copy.follow(self._committed) for copy in self._copies[group]], default=0)

    @property
    def uncommitted(self) -> int:
        """Bytes of rows that were never filled and lie in small pages. Scratch rows count as if they were not there."""
        pages = sum(array.separate for array in self._memory) / self._pages if self._pages else 1.0
        return int(self.spec.bytes * pages * (1 - self._filled / self.capacity))

    def _join_pages(self, rows: int) -> None:
        """Join as many small pages as the share of `rows` new rows."""
        count = ceil(rows * self._share)
        for array in self._memory:
            count -= array.join_pages(count)
        self._separate = any(array.separate for array in self._memory)


class OrtRunner:
    """A session whose inputs and outputs are bound to fixed arrays. `present.*` is `past_key_values.*` itself."""

    def __init__(self, session: ort.InferenceSession, spec: EngineSpec, store: HostKV) -> None:
        self.session = session
        self._store = store  # What is bound are views of its arrays, which do not keep the arrays alive.
        self._group = spec.block.quantized_group
        rows = store.values | (store.add_copy(self._group, spec.block.quantized_bits) if self._group else {})
        self.binding = session.io_binding()
        self.inputs: dict[str, np.ndarray] = {}
        self.outputs: dict[str, np.ndarray] = {}
        self._bound: list[ort.OrtValue] = []
        for tensors, arrays, bind in (
            (spec.inputs, self.inputs, self.binding.bind_ortvalue_input),
            (spec.outputs, self.outputs, self.binding.bind_ortvalue_output),
        ):
            for tensor in tensors:
                prefix, _, row = tensor.name.partition(".")
                if prefix in ("past_key_values", "present"):
                    bind(tensor.name, rows[row])
                    continue
                arrays[tensor.name] = np.zeros(tensor.shape, DTYPES[tensor.dtype])
                value = ort.OrtValue.ortvalue_from_numpy(arrays[tensor.name])
                self._bound.append(value)
                bind(tensor.name, value)

    def run(self) -> None:
        """Read the inputs, update the rows in place, write the outputs."""
        if self._group:
            self.inputs[COUNT][0] = self._store.follow(self._group)
        with backend_errors(refused_call):
            self.session.run_with_iobinding(self.binding)


class CopyRunner:
    """A session that gets its inputs and returns its outputs at each run; caches are copied.

    It is for providers that do not read bound memory anew at each run, such as OpenVINO's (plug-in 1.8 for ONNX
    Runtime 1.31).
    """

    def __init__(self, session: ort.InferenceSession, spec: EngineSpec, store: HostKV) -> None:
        self.session = session
        self._store = store  # What is fed are views of its arrays, which do not keep the arrays alive.
        self.inputs: dict[str, np.ndarray] = {}
        self.outputs: dict[str, np.ndarray] = {}
        self._feed = {t.name: self._array(t.name, t.shape, t.dtype, store, self.inputs) for t in spec.inputs}
        self._results = [self._array(t.name, t.shape, t.dtype, store, self.outputs) for t in spec.outputs]

    def run(self) -> None:
        """Run the session on the inputs, and copy its outputs and rows to their arrays."""
        with backend_errors(refused_call):
            values = self.session.run(None, self._feed)
        for array, value in zip(self._results, values, strict=True):
            np.copyto(array, value)

    @staticmethod
    def _array(name: str, shape: Sequence[int], dtype: str, store: HostKV, arrays: dict[str, np.ndarray]) -> np.ndarray:
        """Return the cache's array if the tensor is a part of it, else a new array that is added to `arrays`."""
        prefix, _, row = name.partition(".")
        if prefix in ("past_key_values", "present"):
            return np.asarray(store.values[row].numpy())
        arrays[name] = np.zeros(shape, DTYPES[dtype])
        return arrays[name]


def session_options(count: int = 0, device: Device = CPU) -> ort.SessionOptions:
    """Make the options of a session on the CPU.

    Args:
        count: threads, at most as many as the device allows; 0 takes all of them.
        device: says how many threads one engine may take.

    Raises:
        BackendError: SPECC_THREADS is not a number of threads.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = min(count or device.engine_threads, device.engine_threads)
    options.add_session_config_entry("session.intra_op.spin_duration_us", str(SPIN_MICROSECONDS))
    options.log_severity_level = FATAL
    return options
