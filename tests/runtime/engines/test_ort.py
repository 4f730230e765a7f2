"""Sessions of ONNX Runtime: one a file, whatever number of engines it serves."""

import gc
import time

import numpy as np
import pytest

import specc
from specc.runtime.sequence import Cache
from specc.runtime.tree import Tree

pytestmark = pytest.mark.model
CHAINS = ("decode", "verify-chain-4", "verify-chain-6", "verify-chain-12")


@pytest.fixture
def engines(bundle):
    return specc.load(bundle).engines


def test_chains_of_all_widths_are_one_file_and_one_session(engines):
    engines.load("prefill", *CHAINS)
    assert {engines.bundle.engine(name, "onnx").file for name in CHAINS} == {"decode.onnx"}
    assert {id(engines[name].runner.session) for name in CHAINS} == {id(engines["decode"].runner.session)}
    assert engines["prefill"].runner.session is not engines["decode"].runner.session
    assert [engines[name].outputs.ids_N.shape for name in CHAINS] == [(1,), (4,), (6,), (12,)]


def test_engines_of_one_session_do_not_write_into_each_others_outputs(engines):
    store, said = engines.store("target"), {}
    tokens = np.random.default_rng(0).integers(0, engines.bundle.manifest.model.vocab_size, 12).tolist()
    for name in CHAINS:
        slots = engines[name].slots
        engines[name].run(Cache(store), tokens[:slots], Tree.chain(slots))
        said[name] = engines[name].outputs.logits_NV.copy()
    for name in CHAINS:
        np.testing.assert_array_equal(engines[name].outputs.logits_NV, said[name])
        np.testing.assert_allclose(said[name], said["verify-chain-12"][: len(said[name])], atol=1e-4)


def test_a_session_goes_with_the_last_of_its_engines(engines):
    engines.load(*CHAINS)
    sessions = engines.store("target").sessions
    engines.release(*CHAINS[1:])
    gc.collect()
    assert [file for file, _ in sessions] == ["decode.onnx"]
    engines.release("decode")
    gc.collect()
    assert not sessions


def test_threads_are_at_rest_soon_after_a_run(bundle, monkeypatch):
    monkeypatch.setenv("SPECC_THREADS", "4")
    session = specc.load(bundle)
    session.generate([1, 2, 3], 4, recipe="plain")
    spent, start = time.process_time(), time.perf_counter()
    time.sleep(0.03)
    assert time.process_time() - spent < 0.5 * (time.perf_counter() - start)
