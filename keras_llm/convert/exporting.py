"""Model folders to checkpoint folders that Transformers reads."""

import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from keras_llm import models
from keras_llm.convert import electra_pair
from keras_llm.convert.families import family_for
from keras_llm.convert.safetensors_folder import BYTES_EACH, write_shards
from keras_llm.convert.tokenizer_files import write_tokenizer
from keras_llm.convert.weights import Weight, shapes_of_theirs
from keras_llm.core import check_absent, new_folder, write_json

_CONFIG = "config.json"
_LARGEST_SHARD = 5 * 10**9


class Exported(NamedTuple):
    """What `export_folder` wrote."""

    model_type: str  # The family's name.
    tokenizer: str | None  # The kind of the model's tokenizer, if it has one.
    tokenizer_written: bool  # False for a kind that has no counterpart.


def export_folder(
    model_folder: str | os.PathLike[str],
    out: str | os.PathLike[str],
    dtype: str = "float32",
    shard_bytes: int = _LARGEST_SHARD,
) -> Exported:
    """Writes a model folder as a checkpoint folder that Transformers reads.

    An `electra` becomes two such folders in one, `generator` and `discriminator`. One
    weight at a time is in memory.

    Args:
        model_folder: As `models.save` writes it.
        out: The new folder; it must not exist.
        dtype: "float32", which keeps every bit, or "bfloat16", which halves the files.
        shard_bytes: Most bytes of one file of tensors; above it there are shards.

    Returns:
        Which family was written, and whether the tokenizer.

    Raises:
        FileExistsError: `out` exists.
        UnsupportedModelError: No family of checkpoints is like this model.
        core.CorruptFolderError: The model folder is damaged.
        core.DiskFullError: The disk is full.
    """
    check_absent(out)
    tokenizer, written = None, False
    if models.has_tokenizer(model_folder):
        tokenizer = models.load_tokenizer(model_folder)
    with (
        models.open_values(model_folder) as (model, read),
        new_folder(out, BYTES_EACH[dtype] * models.count_parameters(model)) as folder,
    ):
        halves = _checkpoints(model.config)
        for name, family, config in halves:
            path = folder / name
            path.mkdir(exist_ok=True)
            weights = family.weights(family.complete(config))
            write_shards(
                path,
                shapes_of_theirs(weights, model),
                _split(weights, read),
                dtype,
                shard_bytes,
            )
            end_id = None if tokenizer is None else tokenizer.end_id
            write_json(path / _CONFIG, family.write_config(config, dtype, end_id))
            written = tokenizer is not None and write_tokenizer(path, tokenizer)
    kind = None if tokenizer is None else tokenizer.kind
    return Exported(halves[0].family.model_type, kind, written)


def _checkpoints(config: Any) -> list[electra_pair.Half]:
    """Returns what a model is written as: one checkpoint, or ELECTRA's two."""
    if isinstance(config, models.ElectraConfig):
        return electra_pair.halves(config)
    return [electra_pair.Half("", family_for(config), config)]


def _split(
    weights: list[Weight], read: Callable[[str], np.ndarray]
) -> Iterator[tuple[str, np.ndarray]]:
    """Yields the name and the values of each tensor of theirs."""
    for weight in weights:
        yield from zip(weight.theirs, weight.split(read(weight.ours)), strict=True)
