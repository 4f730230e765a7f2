"""Check a checkpoint's directory before transformers reads it.

transformers trusts what a directory says. specc does not run code or pickles that come with a model, reads no file
outside the directory, and names a file that git-lfs or an interrupted download left incomplete.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from specc.runtime.errors import CaptureError, SpeccWarning

LFS = b"version https://git-lfs.github.com/spec/"
CHECKED = (".safetensors", ".json", ".model", ".jinja", ".txt", ".gguf")
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


def check_directory(path: Path) -> None:
    """Check the files of a local checkpoint.

    Raises:
        CaptureError: a file is a git-lfs pointer, the weights are pickled, the index names a file that it must not,
            or the directory holds only an adapter.
    """
    check_pointers(path.iterdir())
    _check_adapter(path)
    _check_index(path)
    if not any(path.glob("*.safetensors")) and (pickled := _first_pickle(path)):
        raise CaptureError(
            f"{path} holds its weights as a pickle ({pickled.name}), which can run code; "
            "load it where you trust it and save it again with save_pretrained, which writes safetensors"
        )


def check_pointers(files: Iterable[Path]) -> None:
    """Check that no file of a checkpoint is what git-lfs leaves in place of a large file.

    Raises:
        CaptureError: a file is a git-lfs pointer.
    """
    for file in sorted(files):
        if (
            file.suffix in CHECKED
            and file.is_file()
            and file.stat().st_size < 1024
            and file.read_bytes().startswith(LFS)
        ):
            raise CaptureError(f"{file} is a git-lfs pointer, not the file itself; run git lfs pull in {file.parent}")


def _first_pickle(path: Path) -> Path | None:
    return next((file for file in sorted(path.iterdir()) if file.suffix in PICKLES), None)


def _check_adapter(path: Path) -> None:
    """Refuse a directory that holds an adapter alone; mention one that lies beside whole weights."""
    file = path / "adapter_config.json"
    if not file.is_file():
        return
    if not (path / "config.json").is_file():
        base = _read_object(file).get("base_model_name_or_path") or "BASE"
        raise CaptureError(
            f"{path} holds an adapter, not a whole model; compile its base model with it: "
            f"specc compile {base} --adapter {path}"
        )
    warnings.warn(
        f"{path} also holds an adapter, which is not applied; give --adapter {path} to merge it",
        SpeccWarning,
        stacklevel=3,
    )


def without_adapter(path: Path, scratch: Path) -> Path:
    """Return a directory with the files of a model directory, but without an adapter's.

    transformers applies an adapter that lies beside whole weights, if peft is installed.

    Args:
        path: the model directory.
        scratch: an empty directory for links to the files, which are made if there is an adapter.
    """
    if not (path / "adapter_config.json").is_file():
        return path
    for file in path.iterdir():
        if not file.name.startswith("adapter_"):
            (scratch / file.name).symlink_to(file.resolve())
    return scratch


def _check_index(path: Path) -> None:
    """Check that the index of a sharded checkpoint names safetensors files of this directory only."""
    for file in sorted(path.glob("*.safetensors.index.json")):
        shards = _read_object(file).get("weight_map", {})
        if not isinstance(shards, dict):
            raise CaptureError(f"{file} has no weight_map; download the checkpoint again")
        for shard in sorted({str(name) for name in shards.values()}):
            if PurePosixPath(shard).name != shard or not shard.endswith(".safetensors"):
                raise CaptureError(f"{file} names {shard!r}; a shard must be a .safetensors file of the same directory")
            if not (path / shard).is_file():
                raise CaptureError(f"{file} names {shard}, which is missing; download the checkpoint again")


def _read_object(file: Path) -> dict[str, object]:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as e:
        raise CaptureError(f"{file} cannot be read as JSON ({e}); download it again") from e
    if not isinstance(data, dict):
        raise CaptureError(f"{file} holds {type(data).__name__}, not a JSON object; download it again")
    return data
