"""TreeAttention against numpy, and trees against one-token decoding along their paths."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import operator_graphs as graphs
import pytest
import specc_kernels
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

examples = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@dataclass(frozen=True, kw_only=True)
class Model:
    """The shapes and attributes of an attention layer."""

    heads: int = 6
    kv_heads: int = 2
    size: int = 32
    rotated: int = 32
    interleaved: bool = False
    window: int = 0
    softcap: float = 0.0
    sinks: bool = False

    @property
    def width(self) -> int:
        return (self.heads + 2 * self.kv_heads) * self.size

    def attributes(self) -> dict[str, Any]:
        return {
            "num_heads": self.heads,
            "kv_num_heads": self.kv_heads,
            "scale": self.size**-0.5,
            "rotary_interleaved": int(self.interleaved),
            "local_window_size": self.window,
            "softcap": self.softcap,
        }

    def tables(self) -> tuple[np.ndarray, np.ndarray]:
        angles = np.arange(2048)[:, None] / 100.0 ** (np.arange(self.rotated // 2) / 16)
        return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)

    def sink_logits(self) -> np.ndarray | None:
        return np.linspace(-1, 2, self.heads).astype(np.float32) if self.sinks else None


class Caches:
    """The cache of one lane, filled with random rows."""

    def __init__(self, model: Model, past: int, capacity: int = 700, seed: int = 0):
        rng = np.random.default_rng(seed)
        shape = (1, model.kv_heads, capacity, model.size)
        self.keys, self.values = (rng.standard_normal(shape, np.float32) for _ in range(2))
        self.past = past

    def copy(self) -> Caches:
        other = object.__new__(Caches)
        other.keys, other.values, other.past = self.keys.copy(), self.values.copy(), self.past
        return other


def run(
    model: Model,
    packed: np.ndarray,
    lanes: list[Caches],
    widths: list[int] | None = None,
    positions: np.ndarray | None = None,
    mask: np.ndarray | None = None,
    threads: int = 1,
    **attributes: Any,
) -> np.ndarray:
    """Run the operator with each lane's past and present in one place; returns [slots, heads, size]."""
    slots = len(packed)
    if positions is None:
        positions = lanes[0].past + np.arange(slots)
    cos, sin = model.tables() if model.rotated else (None, None)
    inputs: dict[str, np.ndarray | None] = {
        "packed": packed[None],
        "past_len": np.array([lane.past for lane in lanes]),
        "widths": None if widths is None else np.array(widths),
        "positions": positions[None],
        "cos": cos,
        "sin": sin,
        "mask": mask,
        "sinks": model.sink_logits(),
    }
    for i, lane in enumerate(lanes):
        inputs |= {f"past.{i}.key": lane.keys, f"past.{i}.value": lane.values}
    outputs = ["out", *(f"present.{i}.{kind}" for i in range(len(lanes)) for kind in ("key", "value"))]
    session = graphs.session("TreeAttention", inputs, {}, outputs, threads, **{**model.attributes(), **attributes})
    binding = session.io_binding()
    for name, value in inputs.items():
        if value is not None:
            binding.bind_cpu_input(name, value)
    out = np.zeros((1, slots, model.heads * model.size), np.float32)
    places = [out, *(array for lane in lanes for array in (lane.keys, lane.values))]
    for name, place in zip(outputs, places, strict=True):
        binding.bind_output(name, "cpu", 0, np.float32, place.shape, place.ctypes.data)
    session.run_with_iobinding(binding)
    return out[0].reshape(slots, model.heads, model.size)


def slots_of(model: Model, count: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, model.width), np.float32)


def rotate(model: Model, x: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Rotate [slots, heads, size] in float64."""
    half = model.rotated // 2
    cos, sin = (t.astype(np.float64)[positions][:, None] for t in model.tables())
    a, b = (
        (x[..., 0 : 2 * half : 2], x[..., 1 : 2 * half : 2])
        if model.interleaved
        else (x[..., :half], x[..., half : 2 * half])
    )
    turned = x.astype(np.float64)
    pair = a * cos - b * sin, b * cos + a * sin
    if model.interleaved:
        turned[..., 0 : 2 * half : 2], turned[..., 1 : 2 * half : 2] = pair
    else:
        turned[..., :half], turned[..., half : 2 * half] = pair
    return turned


def expected(
    model: Model, packed: np.ndarray, caches: Caches, visible: np.ndarray, positions: np.ndarray | None = None
) -> np.ndarray:
    """Attention in float64 where slot i sees the rows of `seen` [slots, past + slots]."""
    slots, past = len(packed), caches.past
    if positions is None:
        positions = past + np.arange(slots)
    split = packed.reshape(slots, -1, model.size)
    query, key, value = np.split(split, [model.heads, model.heads + model.kv_heads], axis=1)
    if model.rotated:
        query, key = rotate(model, query, positions), rotate(model, key, positions)
    keys = np.concatenate([caches.keys[0, :, :past], key.transpose(1, 0, 2)], 1).repeat(
        model.heads // model.kv_heads, 0
    )
    values = np.concatenate([caches.values[0, :, :past], value.transpose(1, 0, 2)], 1).repeat(
        model.heads // model.kv_heads, 0
    )
    scores = np.einsum("nhd,hrd->nhr", query.astype(np.float64), keys.astype(np.float64)) * model.size**-0.5
    if model.softcap:
        scores = model.softcap * np.tanh(scores / model.softcap)
    scores = np.where(visible[:, None], scores, -np.inf)
    if model.sinks:
        sinks = np.broadcast_to(model.sink_logits()[None, :, None], (slots, model.heads, 1))
        scores = np.concatenate([scores, sinks], 2)
    weights = np.exp(scores - scores.max(2, keepdims=True))
    weights /= weights.sum(2, keepdims=True)
    return np.einsum("nhr,hrd->nhd", weights[..., : past + slots], values.astype(np.float64))


def ancestors(parents: list[int]) -> np.ndarray:
    """Which slots each slot sees, itself included; a parent of -1 is the past."""
    visible = np.eye(len(parents), dtype=bool)
    for slot, parent in enumerate(parents):
        if parent >= 0:
            visible[slot] |= visible[parent]
    return visible


def words(visible: np.ndarray) -> list[int]:
    """The attribute `tree`: ancestors as words of 64 bits."""
    padded = np.pad(visible, ((0, 0), (0, -len(visible) % 64))).reshape(-1, 64)
    return [int(np.packbits(row, bitorder="little").view(np.int64)[0]) for row in padded]


trees = st.integers(1, 64).flatmap(lambda n: st.tuples(*(st.integers(max(-1, i - 6), i - 1) for i in range(n))))
pasts = st.one_of(st.integers(0, 20), st.integers(250, 262), st.integers(500, 520))
MODELS = [
    Model(),
    Model(heads=4, kv_heads=4, size=48, rotated=32, interleaved=True),
    Model(heads=9, kv_heads=3, size=64, rotated=0, softcap=5.0),
    Model(heads=8, kv_heads=1, size=80, rotated=80, window=7, sinks=True),
]
each_model = pytest.mark.parametrize("model", MODELS, ids=["plain", "interleaved", "softcap", "window-sinks"])


def in_window(model: Model, visible: np.ndarray, past: int, positions: np.ndarray) -> np.ndarray:
    """[slots, past + slots]: all rows before the slots, and `seen` among these, as far as the window reaches."""
    rows = np.concatenate([np.arange(past), positions])
    near = positions[:, None] - rows < (model.window or 1 << 30)
    return np.concatenate([np.ones((len(visible), past), bool), visible], 1) & near


@each_model
@given(past=pasts, tree=trees)
@examples
def test_the_result_is_attention(variant: str, model: Model, past: int, tree: tuple[int, ...]) -> None:
    visible, caches, packed = ancestors(list(tree)), Caches(model, past), slots_of(model, len(tree))
    positions = past + visible.sum(1) - 1
    reference = expected(model, packed, caches, in_window(model, visible, past, positions), positions)
    result = run(model, packed, [caches], positions=positions, tree=words(visible))
    assert np.abs(result - reference).max() < 2e-5


@pytest.mark.parametrize("variant", [v for v in specc_kernels.variants() if v != "scalar"], indirect=True)
@each_model
@given(past=pasts, tree=trees)
@examples
def test_each_variant_gives_the_bits_of_the_reference(
    variant: str, model: Model, past: int, tree: tuple[int, ...]
) -> None:
    visible, packed = ancestors(list(tree)), slots_of(model, len(tree))
    positions = past + visible.sum(1) - 1
    results = []
    for name in (variant, "scalar"):
        specc_kernels.limit(name)
        results.append(run(model, packed, [Caches(model, past)], positions=positions, tree=words(visible)))
    specc_kernels.limit(variant)
    assert graphs.same_bits(*results)


@each_model
@given(past=pasts, tree=trees)
@examples
def test_a_slot_of_a_tree_has_the_bits_of_decoding_along_its_path(
    variant: str, model: Model, past: int, tree: tuple[int, ...]
) -> None:
    visible, caches, packed = ancestors(list(tree)), Caches(model, past), slots_of(model, len(tree))
    whole = run(model, packed, [caches.copy()], positions=past + visible.sum(1) - 1, tree=words(visible))
    deepest = int(visible.sum(1).argmax())
    for slot in np.flatnonzero(visible[deepest]):
        assert graphs.same_bits(run(model, packed[slot : slot + 1], [caches])[0], whole[slot])
        caches.past += 1


@pytest.mark.parametrize("threads", [1, 2, 3, 4])
def test_a_chain_has_the_bits_of_decoding_at_every_width_and_number_of_threads(variant: str, threads: int) -> None:
    model, past = Model(heads=9, kv_heads=3, size=64), 230
    caches, packed = Caches(model, past), slots_of(model, 64)
    decoded = caches.copy()
    rows = []
    for slot in range(64):
        rows.append(run(model, packed[slot : slot + 1], [decoded])[0])
        decoded.past += 1
    for width in (*range(1, 18), 24, 32, 48, 63, 64):
        chain = run(model, packed[:width], [caches.copy()], threads=threads)
        assert graphs.same_bits(chain, np.stack(rows[:width])), width


@given(widths=st.lists(st.integers(0, 9), min_size=1, max_size=8).filter(any), seed=st.integers(0, 99))
@examples
def test_a_lane_has_the_bits_that_it_has_alone(variant: str, widths: list[int], seed: int) -> None:
    model, rng = Model(), np.random.default_rng(seed)
    lanes = [Caches(model, int(rng.integers(0, 300)), seed=i) for i in range(len(widths))]
    packed = slots_of(model, sum(widths), seed)
    ends = np.cumsum([0, *widths])
    positions = np.concatenate([lane.past + np.arange(n) for lane, n in zip(lanes, widths, strict=True)])
    alone = [run(model, packed[a:b], [lane.copy()]) for a, b, lane in zip(ends, ends[1:], lanes, strict=False) if a < b]
    together = run(model, packed, lanes, widths=widths, positions=positions, threads=2)
    assert graphs.same_bits(together, np.concatenate(alone))


def test_only_the_slots_rows_of_the_cache_change(variant: str) -> None:
    model = Model()
    caches, packed = Caches(model, 10), slots_of(model, 5)
    before = caches.copy()
    run(model, packed, [caches])
    for now, then in ((caches.keys, before.keys), (caches.values, before.values)):
        changed = (now != then).any((0, 1, 3))
        assert list(np.flatnonzero(changed)) == [10, 11, 12, 13, 14]
    value = packed.reshape(5, -1, model.size)[:, model.heads + model.kv_heads :]
    assert graphs.same_bits(caches.values[0, :, 10:15], np.ascontiguousarray(value.transpose(1, 0, 2)))


def test_a_mask_hides_rows_before_the_slots_too(variant: str) -> None:
    model, past, slots, span = Model(), 300, 6, 40
    rng = np.random.default_rng(0)
    mask = rng.random((slots, span)) < 0.5
    mask[:, -slots:] |= np.eye(slots, dtype=bool)
    caches, packed = Caches(model, past), slots_of(model, slots)
    visible = np.concatenate([np.ones((slots, past + slots - span), bool), mask], 1)
    reference = expected(model, packed, caches, visible)
    assert np.abs(run(model, packed, [caches], mask=mask) - reference).max() < 2e-5


def test_a_mask_longer_than_the_rows_is_cut_in_front(variant: str) -> None:
    model, past, slots = Model(), 3, 4
    mask = np.ones((slots, 20), bool)
    mask[:, :13] = False
    mask[:, -slots:] = np.tril(np.ones((slots, slots), bool))
    packed = slots_of(model, slots)
    masked = run(model, packed, [Caches(model, past)], mask=mask)
    assert graphs.same_bits(masked, run(model, packed, [Caches(model, past)]))


def test_a_mask_and_the_attribute_say_the_same(variant: str) -> None:
    model, visible = Model(), ancestors([-1, 0, 0, 1, 2, 2])
    packed, positions = slots_of(model, 6), 20 + ancestors([-1, 0, 0, 1, 2, 2]).sum(1) - 1
    baked = run(model, packed, [Caches(model, 20)], positions=positions, tree=words(visible))
    assert graphs.same_bits(baked, run(model, packed, [Caches(model, 20)], positions=positions, mask=visible))


@pytest.mark.parametrize("special", [np.nan, np.inf])
def test_a_query_that_is_not_finite_reaches_no_other_slot(variant: str, special: float) -> None:
    model, visible = replace(MODELS[2], softcap=0.0), np.eye(5, dtype=bool)
    packed = slots_of(model, 5)
    clean = run(model, packed, [Caches(model, 300)], tree=words(visible))
    packed[2] = special
    result = run(model, packed, [Caches(model, 300)], tree=words(visible))
    assert graphs.same_bits(np.delete(result, 2, 0), np.delete(clean, 2, 0))
    assert np.isnan(result[2]).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"packed": np.zeros((2, 7), np.float32)}, r"the shape \[1, 2, 7\]"),
        ({"past": 699}, "699 rows and 2 slots exceed the capacity 700"),
        ({"past": -1}, "-1 rows and 2 slots exceed"),
        ({"past": 2**63 - 1}, "9223372036854775807 rows and 2 slots exceed the capacity 700"),
        ({"past": 2**63 - 2}, "9223372036854775806 rows and 2 slots exceed the capacity 700"),
        ({"packed": np.zeros((2, 0), np.float32)}, "a head has the size 0"),
        ({"positions": np.array([0, 2048])}, "position 2048 is outside the table of 2048 rows"),
        ({"tree": [1]}, "the attribute tree has 1 words for 2 slots"),
        ({"mask": np.ones((2, 1), bool)}, "the mask has 1 columns for 2 slots"),
        ({"widths": [3]}, "the widths exceed the 2 slots"),
        ({"widths": [1]}, "the widths sum to 1 for 2 slots"),
        ({"widths": [2**63 - 1]}, "the widths exceed the 2 slots"),
        ({"positions": np.array([0, -(2**63)]), "local_window_size": 4}, "position -9223372036854775808 is"),
        ({"local_window_size": -(2**63)}, "local_window_size is -9223372036854775808"),
        ({"num_heads": (2**64 + 2) // 3, "kv_num_heads": (2**64 + 2) // 3}, "the first must be .* at most 1048576"),
    ],
)
def test_bad_input_is_refused_in_one_line(changes: dict[str, Any], message: str) -> None:
    model = Model()
    packed = changes.pop("packed", slots_of(model, 2))
    caches = Caches(model, changes.pop("past", 0))
    changes.setdefault("positions", np.arange(2))
    with pytest.raises(Exception, match="specc::TreeAttention: .*" + message):
        run(model, packed, [caches], **changes)


def test_a_node_with_too_few_outputs_for_its_caches_is_refused() -> None:
    """Rows that have no place would be written to nowhere."""
    model = Model(rotated=0)
    caches = Caches(model, 0)
    inputs: dict[str, np.ndarray | None] = {
        "packed": slots_of(model, 2)[None],
        "past_len": np.array([0]),
        **dict.fromkeys(("widths", "positions", "cos", "sin", "mask", "sinks")),
        "key": caches.keys,
        "value": caches.values,
    }
    session = graphs.session("TreeAttention", inputs, {}, ["out", "present"], **model.attributes())
    with pytest.raises(Exception, match="specc::TreeAttention: keys and values of each lane must be outputs"):
        session.run(None, {name: value for name, value in inputs.items() if value is not None})
