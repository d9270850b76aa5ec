"""Folders of safetensors files as other libraries write them: one, or shards.

Nothing else is opened: no pickle, no file that lies elsewhere.
"""

import contextlib
import math
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import safetensors

from keras_llm.core import (
    CorruptFolderError,
    read_json,
    write_json,
    write_tensors,
)

_SINGLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")
BYTES_EACH = {"float32": 4, "bfloat16": 2}
_READABLE = ("F32", "F16", "BF16")
# Transformers refuses a file whose header does not say so.
_METADATA = {"format": "pt"}


def plain_file(folder: pathlib.Path, name: str) -> pathlib.Path:
    """Returns the path of a file that lies in `folder` itself.

    Raises:
        CorruptFolderError: `name` is no plain base name, or the file is a link or
            something else than a file.
        FileNotFoundError: There is no such file.
    """
    if not (
        isinstance(name, str)
        and name == os.path.basename(name)
        and name not in ("", ".", "..")
        and not {"\\", "\0", ":"} & set(name)
    ):
        raise CorruptFolderError(
            "A file of a folder is named by its plain base name, so that nothing "
            f"outside is ever read. Received: {name!r} in {folder}."
        )
    path = folder / name
    if path.is_symlink():
        raise CorruptFolderError(
            f"{path} is a link, and links are not followed: they may lead anywhere. "
            "Copy the folder with its files in place of the links (cp -rL)."
        )
    if not path.exists():
        raise FileNotFoundError(f"There is no file {name} in {folder}.")
    if not path.is_file():
        raise CorruptFolderError(f"{path} is no plain file.")
    return path


class TensorFolder:
    """The tensors of a folder, whose values are read one at a time.

    Args:
        shapes: Name to shape of every tensor.
        files: Name to the open file that holds it.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], files: Mapping[str, Any]):
        self.shapes = shapes
        self._files = files

    def check_readable(self, name: str) -> None:
        """Raises CorruptFolderError unless a tensor is of a type that weights have.

        What is no weight may be of any: position numbers and masks are integers.
        """
        dtype = self._files[name].get_slice(name).get_dtype()
        if dtype not in _READABLE:
            raise CorruptFolderError(
                f"Weights are read from {', '.join(_READABLE)}. Received: `{name}` of "
                f"type {dtype}. Undo the quantisation where it was made."
            )

    def read(self, name: str) -> np.ndarray:
        """Returns a tensor in float32."""
        return self._files[name].get_tensor(name).astype("float32", copy=False)


@contextlib.contextmanager
def open_tensors(folder: str | os.PathLike[str]) -> Iterator[TensorFolder]:
    """Opens `model.safetensors`, or the shards that its index names.

    Raises:
        FileNotFoundError: There are no safetensors files.
        CorruptFolderError: A file is malformed or cut short; the index names other
            files than plain ones of the folder, or not what they hold.
    """
    import ml_dtypes  # noqa: F401  Importing it teaches NumPy bfloat16.

    root = pathlib.Path(folder)
    shapes: dict[str, tuple[int, ...]] = {}
    files: dict[str, Any] = {}
    with contextlib.ExitStack() as stack:
        for shard, announced in _shards(root).items():
            path = plain_file(root, shard)
            try:
                file = stack.enter_context(safetensors.safe_open(path, "numpy"))
            except safetensors.SafetensorError as error:
                raise CorruptFolderError(
                    f"{path} is no whole safetensors file: {error}."
                ) from error
            names = set(file.keys())
            if announced is not None and names != announced:
                raise CorruptFolderError(
                    f"{path} does not hold what the index says. Missing: "
                    f"{sorted(announced - names)}; left over: "
                    f"{sorted(names - announced)}."
                )
            for name in names:
                shapes[name] = tuple(file.get_slice(name).get_shape())
                files[name] = file
        yield TensorFolder(shapes, files)


def _shards(root: pathlib.Path) -> dict[str, set[str] | None]:
    """Returns the safetensors files with the tensors that the index gives each."""
    if os.path.lexists(root / _SINGLE):
        return {_SINGLE: None}
    if not os.path.lexists(root / _INDEX):
        pickles = [name for name in _PICKLES if os.path.lexists(root / name)]
        hint = (
            f" {pickles[0]} is a pickle, which can run any code when it is opened: "
            "save the model again as safetensors where you trust it."
            if pickles
            else ""
        )
        raise FileNotFoundError(f"There is no {_SINGLE} or {_INDEX} in {root}.{hint}")
    path = plain_file(root, _INDEX)
    index = read_json(path)
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise CorruptFolderError(f"{path} must hold `weight_map`: tensor to file.")
    shards: dict[str, set[str] | None] = {}
    for name, shard in weight_map.items():
        if not isinstance(shard, str) or not shard.endswith(".safetensors"):
            raise CorruptFolderError(
                f"Only .safetensors files are read. Received: {shard!r} for `{name}` "
                f"in {path}."
            )
        names = shards.setdefault(shard, set())
        assert names is not None
        names.add(name)
    return shards


def write_shards(
    folder: pathlib.Path,
    shapes: Mapping[str, tuple[int, ...]],
    tensors: Iterable[tuple[str, np.ndarray]],
    dtype: str,
    shard_bytes: int,
) -> None:
    """Writes tensors as `model.safetensors`, or as shards with an index.

    Args:
        folder: An existing folder.
        shapes: Name to shape of every tensor, in the order of `tensors`.
        tensors: Yields (name, values); one is held in memory at a time.
        dtype: "float32" or "bfloat16".
        shard_bytes: Most bytes of a file, unless one tensor alone has more.
    """
    sizes = {
        name: BYTES_EACH[dtype] * math.prod(shape) for name, shape in shapes.items()
    }
    groups = _groups(sizes, shard_bytes)
    if len(groups) == 1:
        write_tensors(folder / _SINGLE, shapes, tensors, dtype, _METADATA)
        return
    source = iter(tensors)
    weight_map: dict[str, str] = {}
    for number, names in enumerate(groups, start=1):
        shard = f"model-{number:05}-of-{len(groups):05}.safetensors"
        part = (next(source) for _ in names)
        own_shapes = {name: shapes[name] for name in names}
        write_tensors(folder / shard, own_shapes, part, dtype, _METADATA)
        weight_map |= dict.fromkeys(names, shard)
    totals = {
        "total_parameters": sum(map(math.prod, shapes.values())),
        "total_size": sum(sizes.values()),
    }
    write_json(folder / _INDEX, {"metadata": totals, "weight_map": weight_map})


def _groups(sizes: Mapping[str, int], most: int) -> list[list[str]]:
    """Returns names in order, cut where a group would have more than `most` bytes."""
    groups: list[list[str]] = [[]]
    room = most
    for name, size in sizes.items():
        if groups[-1] and size > room:
            groups.append([])
            room = most
        groups[-1].append(name)
        room -= size
    return groups
