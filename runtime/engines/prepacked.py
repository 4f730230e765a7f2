"""ONNX Runtime's entries `prepacked_N`, which say where the packed copies of a weight lie.

They stand among a tensor's external data beside location, offset and length. The format is not documented. It is read
and written by core/framework/tensor_external_data_info.cc (github.com/microsoft/onnxruntime) as

    kernel|offset;length;checksum[|offset;length;checksum …]
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True)
class Copy:
    """A packed copy of a weight, in the file that the tensor's `location` names.

    Attributes:
        offset: of its first byte.
        length: in bytes.
        checksum: ONNX Runtime 1.31 writes 0 and checks nothing.
    """

    offset: int
    length: int
    checksum: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `offset;length;checksum`.

        Raises:
            ValueError: it has other parts, which a newer ONNX Runtime may have added.
        """
        offset, length, checksum = text.split(";")
        return cls(int(offset), int(length), checksum)

    def format(self) -> str:
        """Write it as ONNX Runtime does."""
        return f"{self.offset};{self.length};{self.checksum}"


@dataclass(frozen=True)
class Prepacked:
    """The packed copies of one weight for one kind of kernel.

    Attributes:
        kernel: the kind, as ONNX Runtime names it.
        copies: some kernels need several.
    """

    kernel: str
    copies: tuple[Copy, ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the value of an entry.

        Raises:
            ValueError: it is not of this format.
        """
        kernel, *copies = text.split("|")
        return cls(kernel, tuple([Copy.parse(copy) for copy in copies]))

    def format(self) -> str:
        """Write the value of an entry as ONNX Runtime does."""
        return "|".join([self.kernel, *[copy.format() for copy in self.copies]])
