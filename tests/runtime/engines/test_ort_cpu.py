"""Rows and runs of ONNX Runtime on the CPU."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

import specc
from specc.runtime.device import Device
from specc.runtime.engines import ort_cpu
from specc.runtime.engines.ort_cpu import CopyRunner, HostKV, OrtRunner, session_options
from specc.runtime.errors import BackendError
from specc.runtime.manifest import CacheSpec
from specc.runtime.sequence import Released


def test_layers_of_one_shape_share_an_array_and_rows_are_moved_in_all_of_them() -> None:
    store = HostKV(CacheSpec(8, {"0": (2, 4), "3": (2, 4), "7": (1, 4)}))
    assert [a.shape for a in store.arrays] == [(4, 2, 8, 4), (2, 1, 8, 4)]
    assert set(store.values) == {f"{layer}.{kind}" for layer in "037" for kind in ("key", "value")}
    for array in store.arrays:
        array[:] = np.arange(8)[:, None]
    store.commit(2, [0, 2, 5])
    for value in store.values.values():
        assert value.numpy()[0, 0, :, 0].tolist() == [0, 1, 2, 4, 7, 5, 6, 7]


def test_the_first_rows_of_another_store_are_copied_if_its_shapes_are_the_same() -> None:
    layers = {"0": (2, 4), "3": (2, 4), "7": (1, 4)}
    store, source = HostKV(CacheSpec(8, layers)), HostKV(CacheSpec(8, layers))
    for array in source.arrays:
        array[:] = np.arange(1, 9)[:, None]
    for other in (HostKV(CacheSpec(9, layers)), HostKV(CacheSpec(8, {"0": (2, 4)})), Released()):
        assert store.copy(other, 5) == 0 and not any(array.any() for array in store.arrays)
    assert store.copy(source, 5) == 5
    for value in store.values.values():
        assert value.numpy()[0, 0, :, 0].tolist() == [1, 2, 3, 4, 5, 0, 0, 0]


@pytest.mark.parametrize(("count", "threads"), [(0, 4), (1, 1), (9, 4)])
def test_a_session_takes_no_more_threads_than_the_process(
    count: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPECC_THREADS", "4")
    options = session_options(count)
    assert options.intra_op_num_threads == threads
    spin = options.get_session_config_entry("session.intra_op.spin_duration_us")
    assert spin == str(ort_cpu.SPIN_MICROSECONDS)


@pytest.mark.parametrize(("count", "threads"), [(0, 2), (1, 1), (9, 2)])
def test_the_device_says_how_many_threads_a_session_takes(
    count: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPECC_THREADS", "4")
    assert session_options(count, Device(threads=2)).intra_op_num_threads == threads


def test_a_wrong_number_of_threads_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPECC_THREADS", "many")
    with pytest.raises(BackendError, match="SPECC_THREADS is 'many'"):
        session_options()


@pytest.mark.model
def test_threads_are_at_rest_soon_after_a_run(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPECC_THREADS", "4")
    session = specc.load(bundle)
    session.generate([1, 2, 3], 4, recipe="plain")
    before, start = time.process_time(), time.perf_counter()
    time.sleep(0.03)
    assert time.process_time() - before < 0.5 * (time.perf_counter() - start)


@pytest.mark.model
def test_an_engine_that_copies_its_cache_computes_what_one_in_place_computes(bundle: Path) -> None:
    engines = specc.load(bundle).engines
    engine, spec = engines["decode"], engines.bundle.engine("decode")
    runner = engine.runner
    assert isinstance(runner, OrtRunner)
    copying = CopyRunner(runner.session, spec, HostKV(engines.bundle.manifest.caches["target"]))
    for row, token in enumerate([5, 3, 8]):
        for one in (runner, copying):
            one.inputs["input_ids"][0, 0], one.inputs["past_len"][0] = token, row
            one.run()
        assert np.abs(runner.outputs["logits"]).max() > 0
        np.testing.assert_array_equal(runner.outputs["logits"], copying.outputs["logits"])


def test_a_copy_in_4_bits_follows_the_committed_rows() -> None:
    """Rows that were dropped or replaced lose their codes, and a store without copies rounds nothing."""
    store = HostKV(CacheSpec(24, {"0": (2, 4), "7": (1, 6)}))
    values = store.add_copy(4)
    assert set(values) == {
        f"{layer}.{kind}.{part}" for layer in "07" for kind in ("key", "value") for part in ("codes", "scales", "least")
    }
    for array in store.arrays:
        array[:] = np.arange(24.0)[:, None]
    store.commit(0, range(14))
    assert store.follow(4) == 8
    assert values["0.key.least"].numpy()[0, 0, :, 0, 0].tolist() == [0, 4, 0, 0, 0, 0]
    assert values["7.value.least"].numpy()[0, 0, :2, :, 0].ravel().tolist() == list(range(8))
    assert store.rewind(7) == 7 and store.follow(4) == 0
    store.commit(7, range(9))
    assert store.follow(4) == 12
    other = HostKV(store.spec)
    other.add_copy(4)
    assert other.copy(store, 9) == 9 and other.follow(4) == 4


def test_a_commit_over_other_rows_drops_their_codes() -> None:
    store = HostKV(CacheSpec(24, {"0": (1, 2)}))
    least = store.add_copy(4)["0.value.least"].numpy()
    store.arrays[0][:] = 1
    store.commit(0, range(16))
    assert store.follow(4) == 12 and (least[0, 0, :3] == 1).all()
    store.arrays[0][:] = 2
    store.commit(4, range(12))
    assert store.follow(4) == 12
    assert least[0, 0, :3, 0, 0].tolist() == [2, 2, 2]
