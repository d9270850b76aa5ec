"""Writing a safetensors file one tensor at a time: no second copy of a model."""

import json
import math
import os
from collections.abc import Iterable, Mapping

import numpy as np

_CODE = {"float32": "F32", "bfloat16": "BF16"}
_HEADER_ALIGNMENT = 8


def write_tensors(
    path: str | os.PathLike[str],
    shapes: Mapping[str, tuple[int, ...]],
    tensors: Iterable[tuple[str, np.ndarray]],
    dtype: str = "float32",
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Writes a safetensors file, holding one tensor in memory at a time.

    Args:
        path: The file to write.
        shapes: Name to shape of every tensor, in the order of the file.
        tensors: Yields (name, values) in that order; values are cast to `dtype`.
        dtype: "float32" or "bfloat16", of all tensors.
        metadata: Strings to keep in the file's header.

    Raises:
        ValueError: `tensors` gives another name, order or shape than announced.

    >>> import safetensors.numpy, tempfile
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     write_tensors(file.name, {"a": (2,)}, [("a", np.ones(2))])
    ...     safetensors.numpy.load_file(file.name)
    {'a': array([1., 1.], dtype=float32)}
    """
    number_type = _number_type(dtype)
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + math.prod(shape) * number_type.itemsize
        header[name] = {
            "dtype": _CODE[dtype],
            "shape": list(shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _HEADER_ALIGNMENT)
    announced = iter(shapes.items())
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, values in tensors:
            if (name, values.shape) != next(announced, None):
                raise ValueError(
                    "Tensors must come in the order and with the shapes announced. "
                    f"Received: {name!r} of shape {values.shape} for {path}."
                )
            flat = np.ascontiguousarray(values, number_type).reshape(-1)
            file.write(flat.view("uint8").data)
    if next(announced, None) is not None:
        raise ValueError(f"Fewer tensors came than were announced for {path}.")


def _number_type(dtype: str) -> np.dtype:
    """Returns the little-endian NumPy type of a safetensors file."""
    if dtype == "bfloat16":
        import ml_dtypes  # It comes with TensorFlow.

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(dtype).newbyteorder("<")
