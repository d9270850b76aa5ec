"""GGUF files, the format of llama.cpp: settings and quantised tensors in one file.

The library `gguf` reads them, but trusts their every number. So a file is walked once
before it gets there: every length and offset must lie within the file.
"""

import contextlib
import math
import os
import pathlib
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np

from keras_llm.core import CorruptFolderError

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_STRING, _ARRAY = 8, 9
_BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_LEAST_SETTING = 8 + 4 + 1  # Length of a name, type, and a value.
_LEAST_TENSOR = 8 + 4 + 8 + 4 + 8  # Length of a name, axes, one size, type, offset.
_MOST_AXES = 4


class GGUFFile:
    """Settings and tensors of a file, whose values are read one at a time.

    Attributes:
        settings: Name to value: a number, bool or string, or a list of them.
        shapes: Name to shape of every tensor, outermost axis first.
    """

    def __init__(self, reader: Any):
        self.settings = {
            name: field.contents()
            for name, field in reader.fields.items()
            if not name.startswith("GGUF.")
        }
        self._tensors = {tensor.name: tensor for tensor in reader.tensors}
        self.shapes = {
            name: tuple(int(size) for size in reversed(tensor.shape))
            for name, tensor in self._tensors.items()
        }

    def check_readable(self, name: str) -> None:
        """Raises CorruptFolderError unless a tensor's kind of numbers can be read."""
        import gguf

        kind = self._tensors[name].tensor_type
        try:
            gguf.quants.dequantize(_one_block(kind), kind)
        except NotImplementedError as error:
            raise CorruptFolderError(
                f"Weights are read from what `gguf` turns into floats. Received: "
                f"`{name}` of type {kind.name}. Take a file of another quantisation."
            ) from error

    def read(self, name: str) -> np.ndarray:
        """Returns a tensor in float32."""
        import gguf

        tensor = self._tensors[name]
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        return np.asarray(values, np.float32).reshape(self.shapes[name])


def _one_block(kind: Any) -> np.ndarray:
    """Returns the bytes of one block of zeros."""
    import gguf

    zeros = np.zeros(gguf.GGML_QUANT_SIZES[kind][1], np.uint8)
    floats = {"F32": np.float32, "F16": np.float16}
    return zeros.view(floats[kind.name]) if kind.name in floats else zeros


@contextlib.contextmanager
def open_gguf(source: str | os.PathLike[str]) -> Iterator[GGUFFile]:
    """Opens a GGUF file.

    Raises:
        FileNotFoundError: There is none.
        CorruptFolderError: It is a link, cut short, or contradicts itself.
        ModuleNotFoundError: The library is not installed.
    """
    path = pathlib.Path(source)
    if path.is_symlink():
        raise CorruptFolderError(
            f"{path} is a link, and links are not followed. Give the file itself."
        )
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    try:
        import gguf
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "A GGUF file is read by the library `gguf`, which is not installed: "
            "pip install 'keras_llm[gguf]'."
        ) from error
    _Walk(path).check()
    try:
        reader = gguf.GGUFReader(path)
        file = GGUFFile(reader)
    except (ValueError, KeyError, IndexError, UnicodeDecodeError) as error:
        raise CorruptFolderError(f"{path} is no whole GGUF file: {error}.") from error
    yield file


class _Walk:
    """Steps through a file's header and checks that all of it is there."""

    def __init__(self, path: pathlib.Path):
        self.path = path
        self.data: Any = b""  # What has no bytes cannot be mapped.
        if path.stat().st_size:
            self.data = np.memmap(path, np.uint8, "r")
        self.at = 0

    def check(self) -> None:
        """Raises CorruptFolderError where a number leads out of the file."""
        if bytes(self._take(4)) != _MAGIC:
            self._fail("it does not begin with the letters GGUF")
        version, tensors, settings = self._numbers("<IQQ")
        if version not in _VERSIONS:
            self._fail(f"its version is {version}, where {_VERSIONS} are known")
        self._room_for(settings, _LEAST_SETTING)
        alignment = 32
        for _ in range(settings):
            name = self._string()
            (kind,) = self._numbers("<I")
            start = self.at
            self._skip(kind)
            if name == b"general.alignment" and kind == 4:
                (alignment,) = struct.unpack("<I", bytes(self.data[start : self.at]))
        self._room_for(tensors, _LEAST_TENSOR)
        ends = [self._tensor() for _ in range(tensors)]
        if not 0 < alignment <= 2**16:
            self._fail(f"its alignment is {alignment}")
        begin = -(-self.at // alignment) * alignment
        if tensors and not begin + max(ends) <= len(self.data):
            self._fail("its tensors end behind the file's end")

    def _tensor(self) -> int:
        """Steps over what is said of a tensor; returns where its values end."""
        import gguf

        name = self._string()
        (axes,) = self._numbers("<I")
        if not 0 < axes <= _MOST_AXES:
            self._fail(f"the tensor {name!r} has {axes} axes")
        sizes = self._numbers(f"<{axes}Q")
        kind, offset = self._numbers("<IQ")
        try:
            values, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(kind)]
        except (KeyError, ValueError):
            self._fail(f"the tensor {name!r} is of the unknown type {kind}")
        if 0 in sizes or sizes[0] % values:
            self._fail(f"the tensor {name!r} of sizes {sizes} is not of whole blocks")
        return offset + math.prod(sizes) // values * size

    def _skip(self, kind: int) -> None:
        """Steps over one value."""
        if kind == _STRING:
            self._string()
        elif kind == _ARRAY:
            item, number = self._numbers("<IQ")
            if item in _BYTES:
                self._take(number * _BYTES[item])
            elif item == _STRING:
                self._room_for(number, 8)
                for _ in range(number):
                    self._string()
            else:
                self._fail(f"it has an array of the unknown type {item}")
        elif kind in _BYTES:
            self._take(_BYTES[kind])
        else:
            self._fail(f"it has a setting of the unknown type {kind}")

    def _string(self) -> bytes:
        (length,) = self._numbers("<Q")
        return bytes(self._take(length))

    def _numbers(self, pattern: str) -> tuple[int, ...]:
        return struct.unpack(pattern, self._take(struct.calcsize(pattern)))

    def _take(self, number: int) -> Any:
        self._room_for(number, 1)
        self.at += number
        return self.data[self.at - number : self.at]

    def _room_for(self, number: int, size: int) -> None:
        if not self.at + number * size <= len(self.data):
            self._fail(
                f"{number:,} more entries from byte {self.at:,} on do not fit into its "
                f"{len(self.data):,} bytes"
            )

    def _fail(self, reason: str) -> Any:
        raise CorruptFolderError(f"{self.path} is no whole GGUF file: {reason}.")
