"""Checkpoint folders of Transformers to model folders, and back."""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Collection, Mapping
from typing import Any

import keras
import numpy as np

from keras_llm import models
from keras_llm.convert import safetensors_folder
from keras_llm.convert.families import family_for, family_of
from keras_llm.convert.family import Family
from keras_llm.convert.safetensors_folder import TensorFolder
from keras_llm.convert.weights import Weight
from keras_llm.core import (
    CorruptFolderError,
    check_absent,
    new_folder,
    read_json,
    write_json,
)

_CONFIG = "config.json"
_LARGEST_SHARD = 5 * 10**9
# What every one of our configs may have, and tensors bear out.
_SIZES = (
    "vocab_size",
    "width",
    "num_layers",
    "num_heads",
    "key_value_heads",
    "head_size",
    "feed_forward_width",
)

Path = str | os.PathLike[str]


def import_folder(
    source: Path, out: Path, ignored_fields: Collection[str] = ()
) -> None:
    """Reads a checkpoint folder of Transformers and writes a model folder.

    Every tensor is accounted for, and every field of the config understood or
    refused. At most one weight is in memory at a time.

    Args:
        source: Holds `config.json`, and `model.safetensors` or its shards with
            `model.safetensors.index.json`. Files that are links are refused.
        out: The model folder; it must not exist.
        ignored_fields: Fields of their config that change nothing, as you know.

    Raises:
        FileNotFoundError: `source` lacks a file.
        FileExistsError: `out` exists.
        UnsupportedModelError: The config asks for what our models do not do.
        core.CorruptFolderError: A file is malformed; a tensor is missing, left over,
            or of another shape than the config says.
        core.DiskFullError: The disk is full.
    """
    check_absent(out)
    root = pathlib.Path(source)
    if not root.is_dir():
        raise FileNotFoundError(f"A checkpoint folder is needed. Received: {source}.")
    values = read_json(safetensors_folder.plain_file(root, _CONFIG))
    if not isinstance(values, dict):
        raise CorruptFolderError(f"{root / _CONFIG} must hold a JSON object.")
    family = family_of(values)
    config = family.read_config(values, ignored_fields)
    with safetensors_folder.open_tensors(root) as tensors:
        _check_sizes(config, tensors)
        model = models.skeleton(config)
        rename = _renaming(tensors, family)
        weights = [
            dataclasses.replace(weight, theirs=tuple(map(rename, weight.theirs)))
            for weight in family.weights(family.complete(config))
        ]
        copies = {
            copy: rename(original) for copy, original in family.copies(config).items()
        }
        silent = [name for name in tensors.shapes if family.is_no_weight(name)]
        _check_fit(_their_shapes(model, weights), [*copies, *silent], tensors)
        _check_copies(tensors, copies)
        by_path = {weight.ours: weight for weight in weights}
        values = (
            (
                path,
                by_path[path].join(
                    [tensors.read(name) for name in by_path[path].theirs]
                ),
            )
            for path in (weight.path for weight in model.weights)
        )
        models.save_values(model, values, out)


def export_folder(
    model_folder: Path, out: Path, shard_bytes: int = _LARGEST_SHARD
) -> str:
    """Writes a model folder as a checkpoint folder that Transformers reads.

    Args:
        model_folder: As `models.save` writes it.
        out: The new folder; it must not exist.
        shard_bytes: Most bytes of one file of tensors; above it there are shards.

    Returns:
        The `model_type` that was written.

    Raises:
        FileExistsError: `out` exists.
        UnsupportedModelError: No family of checkpoints is like this model.
        core.CorruptFolderError: The model folder is damaged.
        core.DiskFullError: The disk is full.
    """
    check_absent(out)
    with models.open_values(model_folder) as (model, read), new_folder(out) as folder:
        config = model.config
        family = family_for(config)
        weights = family.weights(family.complete(config))
        exported = (
            pair
            for weight in weights
            for pair in zip(weight.theirs, weight.split(read(weight.ours)), strict=True)
        )
        safetensors_folder.write_shards(
            folder, _their_shapes(model, weights), exported, shard_bytes
        )
        write_json(folder / _CONFIG, family.write_config(config))
    return family.model_type


def _check_sizes(config: Any, tensors: TensorFolder) -> None:
    """Raises CorruptFolderError for sizes that the tensors cannot have.

    Before anything is built: a config of a few bytes may ask for any size.
    """
    largest = max(
        (max(shape, default=1) for shape in tensors.shapes.values()), default=0
    )
    for name, value in config.to_dict().items():
        most = len(tensors.shapes) if name == "num_layers" else largest
        if name in _SIZES and value is not None and not value <= most:
            raise CorruptFolderError(
                f"The config asks for {name}={value}, but the tensors beside it allow "
                f"{most} at most."
            )


def _renaming(tensors: TensorFolder, family: Family) -> Callable[[str], str]:
    """Returns their names as this file has them: the trunk's alone lack the prefix."""
    if any(name.startswith(family.prefix) for name in tensors.shapes):
        return str
    return lambda name: name.removeprefix(family.prefix)


def _their_shapes(
    model: keras.Model, weights: list[Weight]
) -> dict[str, tuple[int, ...]]:
    """Returns the shape of every tensor of theirs."""
    ours = {weight.path: tuple(weight.shape) for weight in model.weights}
    return {
        name: shape
        for weight in weights
        for name, shape in zip(
            weight.theirs, weight.their_shapes(ours[weight.ours]), strict=True
        )
    }


def _check_fit(
    expected: Mapping[str, tuple[int, ...]],
    allowed: Collection[str],
    tensors: TensorFolder,
) -> None:
    """Raises CorruptFolderError unless the tensors are the expected and the allowed."""
    missing = sorted(set(expected) - set(tensors.shapes))
    left_over = sorted(set(tensors.shapes) - set(expected) - set(allowed))
    if missing or left_over:
        raise CorruptFolderError(
            "The tensors are not those of the config. "
            f"Missing: {missing}; left over: {left_over}."
        )
    for name, shape in expected.items():
        if tensors.shapes[name] != shape:
            raise CorruptFolderError(
                f"The tensor `{name}` has shape {tensors.shapes[name]}, but the config "
                f"asks for {shape}."
            )


def _check_copies(tensors: TensorFolder, copies: Mapping[str, str]) -> None:
    """Raises CorruptFolderError where a repeated tensor differs from its original."""
    for copy, original in copies.items():
        if copy in tensors.shapes and not np.array_equal(
            tensors.read(copy), tensors.read(original)
        ):
            raise CorruptFolderError(
                f"`{copy}` must equal `{original}`, since the config ties the two. "
                "They differ, so one of them would be lost."
            )
