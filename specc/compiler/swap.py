"""Put the weights of another draft model into a bundle, without a compile: the engines stay as they are.

Online Speculative Decoding (Liu et al. 2023, arXiv:2310.07177) trains the draft model on what it serves, and puts new
weights into use again and again. The weights of a bundle lie in files of their own, which engines name places in. So
new ones take the places of the old ones, and nothing is built. The paper changes the weights of a running model; here a
new bundle is written, or the old one is replaced as a whole, and a program loads it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from specc.compiler import weights
from specc.compiler.build import stored_tensors
from specc.compiler.graphs import Graphs, add_one_loop, graph_key, pack_graphs, prepare, quantize_graphs
from specc.compiler.load import check_assistant_tokenizer, load_assistant
from specc.compiler.options import Options
from specc.exactness import golden
from specc.huggingface.recursive import loops_of
from specc.passes.find import weight
from specc.runtime.block import STATE, Block
from specc.runtime.bundle import Bundle, open_bundle
from specc.runtime.bundle_writer import link, write_manifest, written_whole
from specc.runtime.engines import kernels
from specc.runtime.engines.mapped_weights import read_header
from specc.runtime.errors import BundleError
from specc.runtime.manifest import EngineSpec
from specc.runtime.session import open_session

ASSISTANT, TOKENIZER = "assistant", "tokenizer.json"
Stage = Callable[[str, int, int], None]
STAGES = ("read the draft model", "write the weights", "replay the golden outputs")
AGAIN = "compile the model anew with this draft model"


@dataclass(frozen=True, kw_only=True)
class Swapped:
    """A bundle with other weights of its draft model.

    Attributes:
        bundle: the new bundle, opened.
        tensors: how many tensors were replaced.
        recipes: the recipes that draft by them, whose golden outputs were replayed.
    """

    bundle: Bundle
    tensors: int
    recipes: tuple[str, ...]


def swap_draft(
    source: Path,
    draft: str,
    output: Path,
    overwrite: bool = False,
    stage: Stage = lambda title, done, total: None,
) -> Swapped:
    """Write a bundle with the weights of another draft model of the same shape.

    Args:
        source: a bundle with a draft model. It stays as it is, unless it is the output.
        draft: the draft model, a directory or a hub id.
        output: the directory of the new bundle.
        overwrite: replace a bundle that stands there.
        stage: called as each stage begins, with its title, the stages done and the stages in all.

    Raises:
        BundleError: the bundle cannot be read, has no draft model, or one of another shape; or a golden output changed.
            Then nothing is written.
        CaptureError: the draft model does not load.
        RecipeError: the draft model has another tokenizer.
    """
    bundle = open_bundle(source)
    engines = [engine for engine in bundle.manifest.engines if engine.block.model == ASSISTANT]
    if not engines:
        raise BundleError(f"{source} has no draft model; compile it with --assistant-model")
    stage(STAGES[0], 0, len(STAGES))
    tensors = _tensors_of(draft, bundle, engines)
    with written_whole(output, overwrite) as directory:
        stage(STAGES[1], 1, len(STAGES))
        for name in bundle.manifest.files:
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            if name in tensors:
                shutil.copyfile(bundle.file(name), directory / name)
                _overwrite(directory / name, tensors[name])
            else:
                link(bundle.file(name), directory / name)
        unchanged = {name: file for name, file in bundle.manifest.files.items() if name not in tensors}
        write_manifest(directory, replace(bundle.manifest, files=unchanged))
        stage(STAGES[2], 2, len(STAGES))
        names = {engine.name for engine in engines}
        recipes = tuple(r.name for r in bundle.manifest.recipes if names & set(r.engines.values()))
        _check_golden(directory, recipes, draft)
        stage(STAGES[2], len(STAGES), len(STAGES))
    return Swapped(bundle=open_bundle(output), tensors=sum(map(len, tensors.values())), recipes=recipes)


def _tensors_of(draft: str, bundle: Bundle, engines: Sequence[EngineSpec]) -> dict[str, dict[str, Tensor]]:
    """Return the tensors of a draft model as a bundle stores them, by the file and by their names in it.

    Raises:
        BundleError: they do not fit into the places of the old ones, or small ones differ, which stand in the engines.
    """
    options = Options(model=str(bundle.path), output="")
    prompts = [case.prompt for case in golden.cases_of(bundle)]
    untyped: Any = PreTrainedTokenizerFast
    tokenizer = untyped(tokenizer_file=str(bundle.file(TOKENIZER)))
    check_assistant_tokenizer(draft, options, tokenizer, prompts)
    model = load_assistant(draft, options, bundle.manifest.model)
    capacity = bundle.manifest.caches[engines[0].block.store].capacity
    blocks_by_file: dict[str, list[Block]] = {}
    for engine in engines:
        outputs = tuple(name for name in engine.block.outputs if not name.startswith(STATE))
        block = replace(engine.block, outputs=outputs)
        blocks_by_file.setdefault(engine.weights or bundle.manifest.weights, []).append(block)
    blocks = [block for group in blocks_by_file.values() for block in group]
    graphs: Graphs = {(ASSISTANT, "fp32"): prepare(model, capacity, None)}
    graphs = quantize_graphs(add_one_loop(graphs, blocks, loops_of(model)), blocks)
    if any(map(kernels.needed, engines)):
        graphs = pack_graphs(graphs, blocks, rounds=True)
    _check_inline(graphs, blocks, bundle, engines, draft)
    return {
        name: _fitted(stored_tensors(group, graphs, capacity), bundle.file(name), _heads(engines), draft)
        for name, group in blocks_by_file.items()
    }


def _heads(engines: Sequence[EngineSpec]) -> tuple[str, ...]:
    """Return what the names of those tensors begin with that belong to trained heads in the draft model's engines."""
    heads = {name.removeprefix(STATE) for e in engines for name in e.block.outputs if name.startswith(STATE)}
    return tuple(f"{weights.prefix_of(ASSISTANT)}{head}." for head in sorted(heads))


def _fitted(tensors: Mapping[str, Tensor], file: Path, heads: tuple[str, ...], draft: str) -> dict[str, Tensor]:
    """Return tensors in the types in which a weights file has them.

    Args:
        tensors: the tensors by name.
        file: the weights file.
        heads: what the names begin with of stored tensors that stay.
        draft: the draft model, for errors.

    Raises:
        BundleError: the file has tensors of other names or shapes.
    """
    header, _ = read_header(file)
    prefix = weights.prefix_of(ASSISTANT)
    expected = {name for name in header if name.startswith(prefix) and not name.startswith(heads)}
    for name in sorted(expected ^ tensors.keys()):
        where = f"{draft} has no" if name in expected else f"{file} has no"
        raise BundleError(f"{where} tensor {name.removeprefix(prefix)}, which the other has; {AGAIN}")
    kinds = {name: kind for kind, name in weights.TYPES.items()}
    fitted = {}
    for name, tensor in tensors.items():
        shape, kind = header[name]["shape"], kinds[header[name]["dtype"]]
        if list(tensor.shape) != shape:
            raise BundleError(
                f"the tensor {name.removeprefix(prefix)} of {draft} has the shape {list(tensor.shape)}, and that of "
                f"the bundle {shape}; {AGAIN}"
            )
        if tensor.dtype != kind and not (tensor.is_floating_point() and kind.is_floating_point):
            raise BundleError(f"the tensor {name.removeprefix(prefix)} has another type in the bundle; {AGAIN}")
        fitted[name] = tensor.to(kind)
    return fitted


def _check_inline(
    graphs: Graphs, blocks: Sequence[Block], bundle: Bundle, engines: Sequence[EngineSpec], draft: str
) -> None:
    """Check that small tensors are as they were, since they stand in the engines.

    Raises:
        BundleError: one differs, or a backend stores its weights in another way.
    """
    for engine in engines:
        if engine.backend != "onnx":
            raise BundleError(f"engine {engine.name} of {engine.backend} holds its weights itself; {AGAIN}")
    models = [ir.load(bundle.file(name)) for name in sorted({engine.file for engine in engines})]
    values = {
        value.const_value.numpy().tobytes()
        for model in models
        for value in model.graph.initializers.values()
        if value.const_value is not None and not isinstance(value.const_value, ir.ExternalTensor)
    }
    for block in blocks:
        graph = graphs[graph_key(graphs, block)].graph
        for node in graph.graph.find_nodes(op="get_attr"):
            tensor = weight(graph, node)
            forms = (tensor, tensor.to(weights.HALF.get(block.weights, tensor.dtype)))
            if tensor.nbytes < weights.INLINE and not any(_bytes(form) in values for form in forms):
                raise BundleError(
                    f"the tensor {node.target} of {draft} is another one, and so small that it stands in the engines; "
                    "train matrices alone (specc train --online), or compile the model anew"
                )


def _bytes(tensor: Tensor) -> bytes:
    """Return the bytes of a tensor, as a file has them."""
    flat = tensor.detach().contiguous().flatten()
    return flat.view(torch.uint8).numpy().tobytes()


def _overwrite(file: Path, tensors: Mapping[str, Tensor]) -> None:
    """Put tensors into a weights file, each in the place of the old one.

    Raises:
        BundleError: the file cannot be written.
    """
    header, start = read_header(file)
    try:
        with file.open("r+b") as opened:
            for name, tensor in tensors.items():
                opened.seek(start + header[name]["data_offsets"][0])
                opened.write(_bytes(tensor))
    except OSError as e:
        raise BundleError(f"cannot write {file}: {e.strerror}; free some space, or choose another output") from e


def _check_golden(directory: Path, recipes: Sequence[str], draft: str) -> None:
    """Replay the golden outputs by the recipes that draft by the new weights.

    Raises:
        BundleError: a lossless recipe has other tokens.
    """
    bundle = open_bundle(directory)
    cases = golden.cases_of(bundle)
    for result in golden.replay(open_session(bundle), cases, recipes, bundle.manifest.near_tie_tolerance):
        if result.verdict is golden.Verdict.DIVERGED:
            raise BundleError(
                f"with the weights of {draft} recipe {result.recipe} changes the golden output {result.case}; {AGAIN}"
            )
