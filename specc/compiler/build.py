"""Requests to engines: the weights that they read, and a file for each block, several built at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from specc import passes
from specc.backends import Options as BuildOptions
from specc.backends import backend
from specc.backends.export import stored_names
from specc.compiler import weights
from specc.compiler.fork_pool import call_each
from specc.compiler.graphs import Graphs, PreparedGraph, graph_key
from specc.compiler.requests import EngineRequest, without_width
from specc.compiler.stages import Stages
from specc.passes.find import sublayers
from specc.runtime.block import KEPT, STATE, Block, GuessTree, Layers
from specc.runtime.environment import threads
from specc.runtime.manifest import EngineSpec
from specc.runtime.tree import Tree

FORKS = 8  # engines built at once at most; each takes some hundred megabytes of its own


@dataclass(frozen=True, kw_only=True)
class Site:
    """A place to build engines in.

    Attributes:
        directory: the bundle.
        capacity: rows of the caches.
        options: the user's options for the backends.
        dump: a directory that gets the graph of each engine after each pass.
    """

    directory: Path
    capacity: int
    options: BuildOptions
    dump: Path | None = None


def write_weights(requests: Sequence[EngineRequest], graphs: Graphs, site: Site) -> None:
    """Write the tensors that the requested engines read, and nothing else.

    Raises:
        BundleError: there is no room.
    """
    blocks_by_file: dict[str, list[Block]] = {}
    for request in requests:
        blocks_by_file.setdefault(_weights_file(request.block, site.options), []).append(request.block)
    for name, blocks in blocks_by_file.items():
        tensors = stored_tensors(blocks, graphs, site.capacity)
        weights.write_type(tensors, site.directory / name, _file_type(blocks[0], site.options))


def stored_tensors(blocks: Sequence[Block], graphs: Graphs, capacity: int) -> dict[str, torch.Tensor]:
    """Return the tensors that the engines of some blocks read and that are stored, by their names in the file.

    Args:
        blocks: blocks whose weights lie in one file.
        graphs: the prepared graphs.
        capacity: rows of the caches.
    """
    tensors: dict[str, torch.Tensor] = {}
    for block in dict.fromkeys(_narrowest(block) for block in blocks):
        tensors |= _tensors_read(graphs[graph_key(graphs, block)], block, capacity)
    return tensors


def build_engines(requests: Sequence[EngineRequest], graphs: Graphs, site: Site, stages: Stages) -> list[EngineSpec]:
    """Build a file for each request, or one for all that differ in width alone where the backend can.

    Args:
        requests: the engines, in the order in which they are returned.
        graphs: the prepared graphs.
        site: where and how to build.
        stages: told of each file as it begins.

    Raises:
        BackendError: a backend cannot build an engine.
        PassError: a pass did not find what it rewrites.
    """
    groups: dict[tuple[str, Block], list[EngineRequest]] = {}
    for request in requests:
        block = without_width(request.block) if request.any_width else request.block
        groups.setdefault((request.backend, block), []).append(request)
    names = list(dict.fromkeys(request.backend for request in requests))
    titles = [_title(group, len(names) > 1) for group in groups.values()]
    stages.begin("build", "build the engines")
    results = call_each(
        [partial(_build_file, group, graphs, site) for group in groups.values()],
        at_once=min(threads(), FORKS) if all(backend(n).builds_in_parallel for n in names) else 1,
        begin=lambda number: stages.advance(number, len(groups), titles[number]),
        prepare=partial(torch.set_num_threads, 1),  # OpenMP's threads do not come along with a fork
    )
    engines = {(engine.name, engine.backend): engine for result in results for engine in result}
    return [engines[request.name, request.backend] for request in requests]


def _file_type(block: Block, options: BuildOptions) -> str:
    """Return the type that names a block's weights file. Panels keep their own types, so one file holds them all."""
    return "fp32" if options.lowering == "kernels" else block.weights


def _tensors_read(prepared: PreparedGraph, block: Block, capacity: int) -> dict[str, torch.Tensor]:
    """Return the stored tensors that an engine of a block reads, by their names in the file."""
    prefix = weights.prefix_of(block.model)
    reads_states = bool(block.inputs) or any(output.startswith(STATE) for output in block.outputs)
    if block.layers == Layers() and not reads_states and not isinstance(block.topology, GuessTree):
        return weights.collect(prepared.graph, prefix)
    graph = passes.fork(prepared.graph)
    passes.run(prepared.block_passes(block, capacity), graph)
    return weights.collect(graph, prefix)


def _narrowest(block: Block) -> Block:
    """Return the smallest block that reads the weights that a block reads: one slot, with a guess behind it if any."""
    topology = block.topology
    smallest: Tree | GuessTree = Tree.chain(1)
    if isinstance(topology, GuessTree):  # One token, with all its guesses: each may have weights of its own.
        smallest = GuessTree(Tree.chain(1 + max(map(len, topology.guesses))).parents, 1, topology.head)
    outputs = tuple(output for output in block.outputs if output != KEPT)
    return replace(block, topology=smallest, outputs=outputs, pruning=None, last_row=False, lanes=1)


def _weights_file(block: Block, options: BuildOptions) -> str:
    """Return the name of the file with a block's weights."""
    if options.split_weights:
        return weights.file_name(block.weights, block.model)
    return weights.file_name(_file_type(block, options))


def _build_file(group: Sequence[EngineRequest], graphs: Graphs, site: Site) -> list[EngineSpec]:
    """Build one file, which is named after the first request of the group, and return the group's engines."""
    first, *others = group
    prepared, builder = graphs[graph_key(graphs, first.block)], backend(first.backend)
    weights_file = _weights_file(first.block, site.options)
    graph = passes.fork(prepared.graph)
    dump = site.dump / first.name if site.dump else None
    records = passes.run(prepared.block_passes(first.block, site.capacity), graph, dump)
    layers = tuple(sublayers(graph))  # before the backend rewrites the graph
    file = site.directory / f"{first.name}{builder.suffix}"
    prefix = weights.prefix_of(first.block.model)
    built = builder.build(graph, first.block, site.directory / weights_file, prefix, file, site.options)
    names = stored_names(site.directory / weights_file)
    engine = EngineSpec(
        name=first.name,
        backend=first.backend,
        file=file.name,
        block=first.block,
        layers=layers,
        inputs=built.inputs,
        outputs=built.outputs,
        passes=(*prepared.passes, *records),
        weights=weights_file,
        needs=built.needs,
        commit=built.commit,
        weight_inputs={t.name: names[prefix + t.name] for t in built.inputs if prefix + t.name in names},
    )
    return [engine, *(builder.engine_at(engine, other.name, other.block) for other in others)]


def _title(group: Sequence[EngineRequest], several_backends: bool) -> str:
    first, *others = group
    title = f"{first.name} and {len(others)} more widths" if others else first.name
    return f"{title} by {first.backend}" if several_backends else title
