"""Whether the tensors of a checkpoint are those that its config asks for."""

import dataclasses
import pathlib
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Protocol

import keras
import numpy as np

from keras_llm import models
from keras_llm.convert.family import Family
from keras_llm.convert.safetensors_folder import plain_file
from keras_llm.convert.weights import Weight, shapes_of_theirs
from keras_llm.core import CorruptFolderError, read_json

_CONFIG = "config.json"
# What our configs may have, and tensors bear out.
_SIZES = (
    "vocab_size",
    "width",
    "num_layers",
    "num_heads",
    "key_value_heads",
    "head_size",
    "feed_forward_width",
    "num_decoder_layers",
    "num_segments",
    "relative_buckets",
)


class Tensors(Protocol):
    """The tensors of a checkpoint, read one at a time."""

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Returns name to shape."""

    def check_readable(self, name: str) -> None:
        """Raises CorruptFolderError unless a tensor is of a type that weights have."""

    def read(self, name: str) -> np.ndarray:
        """Returns a tensor in float32."""


def read_values(root: pathlib.Path) -> dict[str, Any]:
    """Returns the config of a checkpoint folder, as it stands there.

    Raises:
        core.CorruptFolderError: It is no JSON object.
    """
    values = read_json(plain_file(root, _CONFIG))
    if not isinstance(values, dict):
        raise CorruptFolderError(f"{root / _CONFIG} must hold a JSON object.")
    return values


def check_sizes(config: Any, tensors: Tensors) -> None:
    """Raises CorruptFolderError for sizes that the tensors cannot have.

    Before anything is built: a config of a few bytes may ask for any size.
    """
    largest = max(
        (max(shape, default=1) for shape in tensors.shapes.values()), default=0
    )
    for name, value in config.to_dict().items():
        most = len(tensors.shapes) if name.endswith("_layers") else largest
        if name in _SIZES and value is not None and not value <= most:
            raise CorruptFolderError(
                f"The config asks for {name}={value}, but the tensors beside it allow "
                f"{most} at most."
            )


def weights_as_in(
    tensors: Tensors, family: Family, config: Any, model: keras.Model
) -> list[Weight]:
    """Returns the mapping in the order of the model, once all tensors fit.

    A file of the trunk alone leaves the prefix of its names out. Weights of the model
    that the family says nothing of are passed over.

    Raises:
        core.CorruptFolderError: A tensor is missing, left over, of another shape than
            the config says, or a copy that differs from its original.
    """
    has_prefix = any(name.startswith(family.prefix) for name in tensors.shapes)

    def rename(name: str) -> str:
        name = name if has_prefix else name.removeprefix(family.prefix)
        for ending, old in family.old_endings.items():
            if name.endswith(ending) and name not in tensors.shapes:
                return f"{name.rpartition('.')[0]}.{old}"
        return name

    by_path = {
        weight.ours: dataclasses.replace(
            weight, theirs=tuple(map(rename, weight.theirs))
        )
        for weight in family.weights(family.complete(config))
    }
    paths = [weight.path for weight in model.weights if weight.path in by_path]
    weights = [by_path.pop(path) for path in paths]
    assert not by_path, f"no weights of the model: {list(by_path)}"
    copies = {
        copy: rename(original) for copy, original in family.copies(config).items()
    }
    allowed = [*copies, *filter(family.is_no_weight, tensors.shapes)]
    _check_fit(shapes_of_theirs(weights, model), allowed, tensors)
    _check_copies(tensors, copies)
    return weights


def _check_fit(
    expected: Mapping[str, tuple[int, ...]],
    allowed: Collection[str],
    tensors: Tensors,
) -> None:
    """Raises CorruptFolderError unless the tensors are the expected and the allowed."""
    for name in set(expected) & set(tensors.shapes):
        tensors.check_readable(name)
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


def _check_copies(tensors: Tensors, copies: Mapping[str, str]) -> None:
    """Raises CorruptFolderError where a repeated tensor differs from its original."""
    for copy in set(copies) & set(tensors.shapes):
        tensors.check_readable(copy)
    for copy, original in copies.items():
        if copy in tensors.shapes and not np.array_equal(
            tensors.read(copy), tensors.read(original)
        ):
            raise CorruptFolderError(
                f"`{copy}` must equal `{original}`, since the config ties the two. "
                "They differ, so one of them would be lost."
            )


def write_model(
    tensors: Tensors, family: Family, config: Any, out: Any, tokenizer: Any
) -> None:
    """Writes a model folder of a checkpoint, once all of it fits.

    Args:
        tensors: Of the checkpoint.
        family: Its kind.
        config: Ours, as read from its config.
        out: The new folder.
        tokenizer: None for none.

    Raises:
        core.CorruptFolderError: As `check_sizes` and `weights_as_in`.
        core.DiskFullError: The disk is full.
    """
    check_sizes(config, tensors)
    model = models.skeleton(config)
    weights = weights_as_in(tensors, family, config, model)
    models.save_values(model, joined(weights, tensors), out, tokenizer)


def joined(weights: list[Weight], tensors: Tensors) -> Iterator[tuple[str, np.ndarray]]:
    """Yields the path and the values of each of our weights."""
    for weight in weights:
        yield weight.ours, weight.join([tensors.read(name) for name in weight.theirs])
