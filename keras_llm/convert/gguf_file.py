"""GGUF files, the format of llama.cpp: settings and quantised tensors in one file.

The library `gguf` undoes the quantisation. The file's header is read here, where every
length and offset must lie within the file: the library's reader trusts them, and takes
ten times as long over a vocabulary.
"""

import contextlib
import math
import os
import pathlib
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple, NoReturn

import numpy as np

from keras_llm.core import CorruptFolderError

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_STRING, _ARRAY = 8, 9
# Type of a value to its NumPy name.
_NUMBERS = {
    0: "<u1",
    1: "<i1",
    2: "<u2",
    3: "<i2",
    4: "<u4",
    5: "<i4",
    6: "<f4",
    7: "?",
    10: "<u8",
    11: "<i8",
    12: "<f8",
}
_ALIGNMENT = "general.alignment"
_LEAST_SETTING = 8 + 4 + 1  # Length of a name, type, and a value.
_LEAST_TENSOR = 8 + 4 + 8 + 4 + 8  # Length of a name, axes, one size, type, offset.
_MOST_AXES = 4


class _Tensor(NamedTuple):
    """Where a tensor lies: its shape, its kind of numbers, its bytes."""

    shape: tuple[int, ...]
    kind: Any
    begin: int  # Counted from the first tensor's.
    size: int


class GGUFFile:
    """Settings and tensors of a file, whose values are read one at a time.

    Attributes:
        settings: Name to value: a number, bool or string, or a list of them.
        shapes: Name to shape of every tensor, outermost axis first.
    """

    def __init__(self, header: "_Header"):
        self.settings = header.settings
        self._data = header.data[header.tensors_begin :]
        self._tensors = header.tensors
        self.shapes = {name: each.shape for name, each in self._tensors.items()}

    def check_readable(self, name: str) -> None:
        """Raises CorruptFolderError unless a tensor's kind of numbers can be read."""
        import gguf

        kind = self._tensors[name].kind
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
        data = self._data[tensor.begin : tensor.begin + tensor.size]
        values = gguf.quants.dequantize(_as_stored(data, tensor.kind), tensor.kind)
        return np.asarray(values, np.float32).reshape(tensor.shape)


def _one_block(kind: Any) -> np.ndarray:
    """Returns one block of zeros."""
    import gguf

    return _as_stored(np.zeros(gguf.GGML_QUANT_SIZES[kind][1], np.uint8), kind)


def _as_stored(data: np.ndarray, kind: Any) -> np.ndarray:
    """Returns bytes as the library takes them: as floats where they are floats."""
    floats = {"F32": np.float32, "F16": np.float16}
    return data.view(floats[kind.name]) if kind.name in floats else data


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
        import gguf  # noqa: F401
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "A GGUF file is read with the library `gguf`, which is not installed: "
            "pip install 'keras_llm[gguf]'."
        ) from error
    yield GGUFFile(_Header(path))


class _Header:
    """Reads a file's header step by step, and nothing that does not lie in the file.

    Attributes:
        data: The file's bytes, mapped.
        settings: Name to value.
        tensors: Name to where it lies.
        tensors_begin: Where the first one may.

    Raises:
        CorruptFolderError: The file is cut short or contradicts itself.
    """

    def __init__(self, path: pathlib.Path):
        self.path = path
        self.data = np.zeros(0, np.uint8)  # What has no bytes cannot be mapped.
        if path.stat().st_size:
            self.data = np.asarray(np.memmap(path, np.uint8, "r"))
        self._at = 0
        if bytes(self._take(4)) != _MAGIC:
            self._fail("it does not begin with the letters GGUF")
        version, tensors, settings = self._unpack("<IQQ")
        if version not in _VERSIONS:
            self._fail(f"its version is {version}, where {_VERSIONS} are known")
        self._room_for(settings, _LEAST_SETTING)
        self.settings = dict(self._setting() for _ in range(settings))
        self._room_for(tensors, _LEAST_TENSOR)
        self.tensors = dict(self._tensor() for _ in range(tensors))
        if (len(self.settings), len(self.tensors)) != (settings, tensors):
            self._fail("two of its settings or tensors have one name")
        alignment = self.settings.get(_ALIGNMENT, 32)
        if not (isinstance(alignment, int) and 0 < alignment <= 2**16):
            self._fail(f"its alignment is {alignment!r}")
        self.tensors_begin = -(-self._at // alignment) * alignment
        ends = [each.begin + each.size for each in self.tensors.values()]
        if not self.tensors_begin + max(ends, default=0) <= len(self.data):
            self._fail("its tensors end behind the file's end")

    def _setting(self) -> tuple[str, Any]:
        name, (kind,) = self._string(), self._unpack("<I")
        if kind != _ARRAY:
            return name, self._value(kind)
        item, number = self._unpack("<IQ")
        if item == _STRING:
            self._room_for(number, 8)
            return name, [self._string() for _ in range(number)]
        return name, self._numbers(item, number)

    def _tensor(self) -> tuple[str, _Tensor]:
        import gguf

        name, (axes,) = self._string(), self._unpack("<I")
        if not 0 < axes <= _MOST_AXES:
            self._fail(f"the tensor {name!r} has {axes} axes")
        sizes = self._unpack(f"<{axes}Q")
        number, begin = self._unpack("<IQ")
        try:
            kind = gguf.GGMLQuantizationType(number)
            values, size = gguf.GGML_QUANT_SIZES[kind]
        except (KeyError, ValueError):
            self._fail(f"the tensor {name!r} is of the unknown type {number}")
        if 0 in sizes or sizes[0] % values:
            self._fail(f"the tensor {name!r} of sizes {sizes} is not of whole blocks")
        size *= math.prod(sizes) // values
        return name, _Tensor(sizes[::-1], kind, begin, size)

    def _value(self, kind: int) -> Any:
        return self._string() if kind == _STRING else self._numbers(kind, 1)[0]

    def _numbers(self, kind: int, number: int) -> list[Any]:
        if kind not in _NUMBERS:
            self._fail(f"it has a setting of the unknown type {kind}")
        dtype = np.dtype(_NUMBERS[kind])
        return self._take(number, dtype.itemsize).view(dtype).tolist()

    def _string(self) -> str:
        (length,) = self._unpack("<Q")
        try:
            return bytes(self._take(length)).decode()
        except UnicodeDecodeError as error:
            self._fail(f"a string before byte {self._at:,} is no UTF-8 ({error})")

    def _unpack(self, pattern: str) -> tuple[int, ...]:
        return struct.unpack(pattern, bytes(self._take(struct.calcsize(pattern))))

    def _take(self, number: int, size: int = 1) -> np.ndarray:
        self._room_for(number, size)
        begin, self._at = self._at, self._at + number * size
        return self.data[begin : self._at]

    def _room_for(self, number: int, size: int) -> None:
        if not self._at + number * size <= len(self.data):
            self._fail(
                f"{number:,} more entries from byte {self._at:,} on do not fit into "
                f"its {len(self.data):,} bytes"
            )

    def _fail(self, reason: str) -> NoReturn:
        raise CorruptFolderError(f"{self.path} is no whole GGUF file: {reason}.")
