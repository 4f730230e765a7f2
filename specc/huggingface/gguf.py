"""Find GGUF files, check what they hold, and join a split one.

The format is specified at https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. The `gguf` package reads it;
transformers turns its tensors into a model.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from specc.huggingface.directory import check_pointers
from specc.huggingface.gguf_rotary import RotaryScaling, read_rotary_size, read_scaling
from specc.runtime.errors import CaptureError, first_line
from specc.runtime.extras import package

MAGIC = b"GGUF"
PART = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")
# what transformers widens, and what was compared with the same file in llama.cpp's own widening
SUPPORTED = ("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K")
NEAREST = {
    "Q2": "Q4_K",
    "Q3": "Q4_K",
    "IQ": "Q4_K",
    "TQ": "Q4_K",
    "MX": "Q4_K",
    "NV": "Q4_K",
    "Q8": "Q8_0",
    "F6": "F32",
}


@dataclass(frozen=True, kw_only=True)
class GgufFile:
    """A GGUF checkpoint of one file or of several parts.

    Args:
        parts: the files, in order.
        architecture: the key `general.architecture`, such as "llama".
        types: number of tensors of each GGML type, by the type's name.
        scaling: what divides the rotary frequencies, if anything does.
        rotary_size: numbers of a head that turn by their position; None if the file does not say.
    """

    parts: tuple[Path, ...]
    architecture: str
    types: Mapping[str, int]
    scaling: RotaryScaling | None = None
    rotary_size: int | None = None

    @property
    def rounded(self) -> dict[str, int]:
        """Return the types that hold fewer bits than 16 a weight, with their numbers of tensors."""
        return {name: count for name, count in self.types.items() if name not in ("F32", "F16", "BF16")}


@contextmanager
def read_once() -> Iterator[None]:
    """Let the package gguf read each file once, and make each architecture's map of tensor names once.

    transformers reads a file for its configuration and again for its weights, and makes the map of names anew for each
    module. With a vocabulary of 49,152 a reading takes 4 s and the maps take 4 s. So `gguf.GGUFReader` and
    `gguf.get_tensor_name_map` remember what they returned until this context ends. Files must not change meanwhile.
    A context inside another one changes nothing, so that a tokenizer and a model can share a reading.
    """
    try:
        import gguf
    except ImportError:
        yield  # Who needs the package says so.
        return
    reader, name_map = gguf.GGUFReader, gguf.get_tensor_name_map
    if hasattr(name_map, "cache_info"):
        yield  # A context around this one remembers.
        return
    opened = cache(_array_reader(reader))
    module: Any = gguf
    module.GGUFReader = lambda path, mode="r": opened(str(path), mode)
    module.get_tensor_name_map = cache(name_map)
    try:
        yield
    finally:
        module.GGUFReader, module.get_tensor_name_map = reader, name_map


def _array_reader(reader: Any) -> Any:
    """Return a subclass of gguf's reader whose bytes are an ordinary array: a slice of it costs half of a memmap's."""

    def set_data(self: Any, value: Any) -> None:
        self.__dict__["array"] = np.asarray(value)

    return type("ArrayReader", (reader,), {"data": property(lambda self: self.__dict__["array"], set_data)})


def find_gguf(source: Path) -> tuple[Path, ...] | None:
    """Find the GGUF files that a path means.

    Args:
        source: a `.gguf` file, or a directory. A directory with a `config.json` is an ordinary checkpoint.

    Returns:
        One file, or all parts of a split file in order; None if the path means no GGUF file.

    Raises:
        CaptureError: a directory holds several models, or a part is missing.
    """
    if source.is_file():
        return _all_parts(source) if source.suffix == ".gguf" or _starts_with_magic(source) else None
    if not source.is_dir() or (source / "config.json").is_file():
        return None
    files = sorted(source.glob("*.gguf"))
    names = {_stem(file): file for file in files}
    if len(names) > 1:
        raise CaptureError(
            f"{source} holds {len(names)} GGUF models: {', '.join(f.name for f in names.values())}; name one file"
        )
    return _all_parts(files[0]) if files else None


def read_gguf(parts: Sequence[Path]) -> GgufFile:
    """Read the headers of a GGUF checkpoint and check that each tensor can be widened.

    Raises:
        CaptureError: a file is cut or is not GGUF, or a tensor has a type that is not supported.
    """
    types: Counter[str] = Counter()
    architecture = ""
    readers = [_open(part) for part in parts]
    for reader in readers:
        field = reader.fields.get("general.architecture")
        architecture = architecture or (str(field.contents()) if field else "")
        types.update(tensor.tensor_type.name for tensor in reader.tensors)
    unsupported = sorted(types.keys() - set(SUPPORTED))
    if unsupported:
        raise CaptureError(
            f"{parts[0].name} has tensors of type {unsupported[0]}, which specc does not read; "
            f"the nearest type that it reads is {_nearest(unsupported[0])}: quantise the model to that"
        )
    if not architecture:
        raise CaptureError(f"{parts[0].name} names no architecture (general.architecture); convert the model again")
    return GgufFile(
        parts=tuple(parts),
        architecture=architecture,
        types=dict(types),
        scaling=read_scaling(readers),
        rotary_size=read_rotary_size(readers),
    )


def join_parts(parts: Sequence[Path], target: Path) -> Path:
    """Write the parts of a split GGUF file as one file, bit for bit.

    Args:
        parts: the files, in order. The first one holds the keys of the model.
        target: the file to write.

    Returns:
        The only part where there is one, else `target`.
    """
    if len(parts) == 1:
        return parts[0]
    from gguf import GGUFValueType, GGUFWriter

    readers = [_open(part) for part in parts]
    writer = GGUFWriter(target, str(readers[0].fields["general.architecture"].contents()))
    for field in readers[0].fields.values():
        if field.name.startswith(("GGUF.", "split.")) or field.name == "general.architecture":
            continue
        kind = field.types[0]
        element = field.types[-1] if kind == GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), kind, element)
    for tensor in (tensor for reader in readers for tensor in reader.tensors):
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def _open(file: Path) -> Any:
    """Map a GGUF file. Raises CaptureError with what is wrong with it."""
    try:
        from gguf import GGUFReader
    except ImportError as e:
        raise CaptureError(
            f"{file.name} is a GGUF file, and the package gguf is not installed; pip install {package('gguf')}"
        ) from e
    check_pointers([file])
    if not _starts_with_magic(file):
        raise CaptureError(f"{file} does not begin with GGUF's magic bytes; download it again")
    try:
        return GGUFReader(file)
    except Exception as e:
        raise CaptureError(f"{file} cannot be read as GGUF: {first_line(e)}; download it again") from e


def _starts_with_magic(file: Path) -> bool:
    with file.open("rb") as stream:
        return stream.read(4) == MAGIC


def _stem(file: Path) -> str:
    match = PART.fullmatch(file.name)
    return match["stem"] if match else file.stem


def _all_parts(file: Path) -> tuple[Path, ...]:
    """Return every part of the split file that `file` is a part of, in order, or `file` alone."""
    match = PART.fullmatch(file.name)
    if match is None:
        return (file,)
    count = int(match["count"])
    names = [f"{match['stem']}-{number:05d}-of-{count:05d}.gguf" for number in range(1, count + 1)]
    missing = [name for name in names if not (file.parent / name).is_file()]
    if missing:
        raise CaptureError(
            f"{file.name} is one of {count} parts, and {missing[0]} is missing; put all in one directory"
        )
    return tuple(file.parent / name for name in names)


def _nearest(name: str) -> str:
    return next((near for start, near in NEAREST.items() if name.startswith(start)), "Q8_0")
