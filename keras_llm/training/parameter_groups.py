"""Which weights move, at which share of the rate, and what decays them."""

import difflib
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras

from keras_llm.training.config import ParameterGroup, TrainConfig

_ALL = ParameterGroup(pattern="")  # What is in no group.
_BLOCK = re.compile(r"\bblock_(\d+)\b")
_BELOW_BLOCKS = re.compile(r"embedding|relative_bias")


class Settings(NamedTuple):
    """How one weight is treated.

    Attributes:
        rate: Factor on the learning rate.
        weight_decay: Its decay, times the learning rate a step.
    """

    rate: float
    weight_decay: float


def settings(variables: Sequence[Any], config: TrainConfig) -> list[Settings]:
    """Returns the settings of each weight.

    Decay holds back matrices alone, unless a group says otherwise: norms, biases and
    other vectors keep theirs.

    Args:
        variables: Keras variables, by whose `path` groups are found.
        config: Gives `groups`, of which the first that matches counts, `layer_decay`
            and `weight_decay`.

    Raises:
        ValueError: A group's pattern matches no weight; `layer_decay` of a model that
            has no blocks.
    """
    paths = [variable.path for variable in variables]
    for group in config.groups:
        _check_matches("groups", group.pattern, paths)
    depths = _depth_factors(paths, config.layer_decay)
    found = []
    for variable, depth in zip(variables, depths, strict=True):
        decay = config.weight_decay if is_matrix(variable) else 0.0
        own = next(
            (g for g in config.groups if re.search(g.pattern, variable.path)), _ALL
        )
        if own.weight_decay is not None:
            decay = own.weight_decay
        found.append(Settings(depth * own.rate, decay))
    return found


def is_matrix(variable: Any) -> bool:
    """Returns whether a weight has two axes or more."""
    return len(variable.shape) >= 2


def freeze(model: keras.Model, pattern: str | None) -> None:
    """Makes the weights whose path matches not trainable.

    Raises:
        ValueError: It matches none of the trainable weights, or all.
    """
    if pattern is None:
        return
    paths = [variable.path for variable in model.trainable_variables]
    _check_matches("freeze", pattern, paths)
    frozen = [v for v in model.trainable_variables if re.search(pattern, v.path)]
    if len(frozen) == len(paths):
        raise ValueError(
            "A run needs a weight to train. Received: "
            f"train.freeze={pattern!r}, which matches all {len(paths)}. Take a "
            "narrower pattern."
        )
    for variable in frozen:
        variable.trainable = False


def _depth_factors(paths: list[str], decay: float | None) -> list[float]:
    """Returns decay ** (layers above), from the embeddings at the bottom up."""
    if decay is None:
        return [1.0] * len(paths)
    blocks = [_BLOCK.search(path) for path in paths]
    numbers = [int(block[1]) for block in blocks if block]
    if not numbers:
        raise ValueError(
            "`layer_decay` counts a model's blocks, by the names block_0, block_1 and "
            f"so on. Received: train.layer_decay={decay}, weights such as "
            f"{paths[0]!r}. Set it to none, or use train.groups."
        )
    top = max(numbers) + 2  # What follows the blocks, as a head.
    depths = [
        int(block[1]) + 1 if block else 0 if _BELOW_BLOCKS.search(path) else top
        for path, block in zip(paths, blocks, strict=True)
    ]
    return [decay ** (top - depth) for depth in depths]


def _check_matches(field: str, pattern: str, paths: list[str]) -> None:
    if any(re.search(pattern, path) for path in paths):
        return
    nearest = difflib.get_close_matches(pattern, paths, n=3, cutoff=0.0)
    raise ValueError(
        "A pattern names weights by their paths. Received: "
        f"train.{field} with {pattern!r}, which matches none. Among them are: "
        f"{', '.join(nearest)}."
    )
