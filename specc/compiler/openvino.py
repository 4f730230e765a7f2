"""Write a bundle's model for plain decoding as OpenVINO and openvino-genai load it: a graph with a state."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

import onnx_ir as ir

from specc.backends.openvino_graph import adapt, to_openvino
from specc.compiler.runtime_export import check_answer, check_standard, copy_text_files
from specc.exactness import golden, openvino_replay
from specc.runtime.bundle import Bundle, open_bundle
from specc.runtime.bundle_writer import link, written_whole
from specc.runtime.errors import BackendError
from specc.runtime.manifest import EngineSpec, Manifest

Stage = Callable[[str, int, int], None]
STAGES = ("rewrite the engine", "replay the golden outputs")
PACKAGE = "openvino"
TARGET = "decode"


def export_openvino(
    source: Path,
    output: Path,
    overwrite: bool = False,
    stage: Stage = lambda title, done, total: None,
) -> int:
    """Write `openvino_model.xml` and `.bin`, the tokenizer and the end tokens, and replay the golden outputs there.

    Args:
        source: a bundle. It stays as it is.
        output: the directory to write.
        overwrite: replace a directory that this function wrote.
        stage: called as each stage begins, with its title, the stages done and the stages in all.

    Returns:
        The number of golden cases that were replayed.

    Raises:
        BackendError: OpenVINO is absent, the engine cannot be rewritten, or a golden output changed.
        BundleError: the bundle cannot be read, or the directory cannot be written.
    """
    if find_spec(PACKAGE) is None:
        raise BackendError("OpenVINO writes its own form of the model, and is not installed; pip install openvino")
    bundle = open_bundle(source)
    cases = golden.checked_cases(bundle)
    engine = bundle.engine(TARGET, "onnx")
    with written_whole(output, overwrite, openvino_replay.MODEL) as directory:
        stage(STAGES[0], 0, len(STAGES))
        _write_engine(bundle, engine, directory)
        copy_text_files(bundle, directory)
        _write_ends(bundle.manifest, directory)
        stage(STAGES[1], 1, len(STAGES))
        _replay(directory, bundle, cases)
        stage(STAGES[1], len(STAGES), len(STAGES))
    return len(cases)


def _write_engine(bundle: Bundle, engine: EngineSpec, directory: Path) -> None:
    """Rewrite an engine and save it with its weights.

    Raises:
        BackendError: OpenVINO has no operators or no attention like the engine's.
    """
    check_standard(bundle, engine)
    model = ir.load(bundle.file(engine.file))
    weights = engine.weights or bundle.manifest.weights
    with tempfile.TemporaryDirectory(dir=directory) as work:
        link(bundle.file(weights), Path(work) / weights)
        file = Path(work) / "decoder.onnx"
        try:
            adapt(model, engine.layers)
            ir.save(model, file)
            saved = to_openvino(file)
        except BackendError as e:
            raise BackendError(f"the engine {engine.name} cannot run in OpenVINO: {e}") from e
        import openvino  # Engines of another kind are refused without it.

        openvino.save_model(saved, str(directory / openvino_replay.MODEL), compress_to_fp16=False)


def _write_ends(manifest: Manifest, directory: Path) -> None:
    """Write the tokens that end an answer where openvino-genai reads them."""
    ends = list(manifest.model.eos_token_ids)
    text = json.dumps({"eos_token_id": ends} if ends else {}, indent=1)
    (directory / "generation_config.json").write_text(text + "\n")


def _replay(directory: Path, bundle: Bundle, cases: Sequence[golden.Case]) -> None:
    """Decode the golden prompts in OpenVINO, and compare.

    Raises:
        BackendError: a token differs and is no near-tie.
    """
    tolerance = bundle.manifest.near_tie_tolerance
    for number, (answer, case) in enumerate(zip(openvino_replay.decode(directory, cases), cases, strict=True)):
        check_answer("OpenVINO", number, answer, case, tolerance)
