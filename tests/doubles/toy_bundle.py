"""A bundle of every method whose engines are toys, and the backend that runs them."""

from __future__ import annotations

import sys
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest
from toys import LAYERS, SETTINGS, Toy, ToyKV, tokenizer, write_corpus

from doubles.toy_lanes import ToyLanes
from specc.recipes import DECODE, METHODS, Facts, prefill
from specc.runtime import engines
from specc.runtime.block import Block
from specc.runtime.bundle_writer import write_manifest
from specc.runtime.device import Device
from specc.runtime.manifest import CacheSpec, EngineSpec, Manifest, ModelSpec
from specc.runtime.recipe import Recipe
from specc.runtime.tree import Tree

CONTEXT, VOCABULARY, LANES = 256, 258, 3


class ToyBackend:
    """A backend whose engines run in numpy. `loaded` has the names of the engines that it loaded, in order."""

    def __init__(self, native_code: bool = False) -> None:
        self.loaded: list[str] = []
        self.native_code = native_code
        self.model = Toy
        self.lanes = True  # Whether each request has rows of its own.
        self.together = False  # Whether requests run together in an engine with lanes.
        self.runner: ToyLanes | None = None  # That engine's, once it is loaded.

    def load(self, bundle: Any, spec: EngineSpec, store: Any, device: Device, sessions: Any) -> Toy | ToyLanes:
        self.loaded.append(spec.name)
        if spec.block.lanes > 1:
            self.runner = ToyLanes(spec.block, ToyKV(store.capacity), VOCABULARY, self.model)
            return self.runner
        return self.model(spec.block, store, VOCABULARY)

    def many_caches(self, device: Device) -> bool:
        return self.lanes

    def runs_lanes(self, device: Device) -> bool:
        return self.together

    def store(self, spec: CacheSpec, device: Device) -> ToyKV:
        return ToyKV(spec.capacity)


def write_bundle(path: Path, backend: str = "toy", options: Collection[str] = ()) -> None:
    """Write a bundle of methods, as the compiler would.

    Args:
        path: the bundle.
        backend: the name of the backend that runs the engines.
        options: what the compile has of what methods may need. Without any, methods that need nothing are there.
    """
    blocks: dict[Block, str] = {prefill(): "prefill", DECODE: "decode"}
    facts = Facts(
        LAYERS,
        VOCABULARY,
        assistant="assistant-model" in options,
        assistant_layers=LAYERS if "assistant-model" in options else 0,
        corpus="corpus" in options,
    )
    recipes = []
    for m in METHODS.values():
        if set(m.needs) <= set(options):
            plan = m.plan(m.settle(SETTINGS.get(m.name, {})), facts)
            recipe = Recipe(
                name=m.name,
                drafter=m.drafter,
                verify=tuple(blocks.setdefault(b, f"{m.name}-{i}") for i, b in enumerate(plan.verify)),
                acceptance=m.acceptance,
                lossless=m.lossless,
                engines={role: blocks.setdefault(b, f"{m.name}-{role}") for role, b in plan.engines.items()},
                parameters=plan.arguments,
                rule_parameters=plan.rule,
            )
            recipes.append(recipe)
    blocks[Block(Tree.chain(16), lanes=LANES)] = "verify-lanes"
    path.mkdir()
    if "corpus" in options:
        write_corpus(list(b"the quick brown fox jumps over the lazy dog, and the quick fox is brown" * 3), path)
    (path / "all.toy").write_text("toys")
    tokenizer().save(str(path / "tokenizer.json"))
    specs = (
        EngineSpec(name=name, backend=backend, file="all.toy", block=block, layers=(), inputs=(), outputs=(), passes=())
        for block, name in blocks.items()
    )
    manifest = Manifest(
        schema=1,
        model=ModelSpec(
            source="toy",
            revision="main",
            architecture="Toy",
            vocab_size=VOCABULARY,
            layers=LAYERS,
            context=CONTEXT,
            eos_token_ids=(VOCABULARY - 1,),
        ),
        engines=tuple(specs),
        caches={name: CacheSpec(capacity=CONTEXT + 128, layers={}) for name in sorted({b.cache for b in blocks})},
        recipes=tuple(recipes),
        default_recipe="plain",
        versions={},
        files={},
        weights="all.toy",
    )
    write_manifest(path, manifest)


def install(monkeypatch: pytest.MonkeyPatch) -> ToyBackend:
    """Let this runtime know a backend `toy`, until the test ends."""
    backend = ToyBackend()
    monkeypatch.setenv("SPECC_CACHE", "off")
    monkeypatch.setitem(engines.BACKENDS, "toy", "toy")
    monkeypatch.setitem(engines.DEVICES, "toy", ("cpu",))
    monkeypatch.setitem(sys.modules, f"{engines.__name__}.toy", backend)
    return backend


class Slow(Toy):
    """A model whose runs take a while, so that requests meet."""

    def run(self) -> None:
        super().run()
        time.sleep(0.001)
