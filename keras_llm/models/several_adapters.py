"""Several saved adapters in one model, chosen row by row."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from keras_llm.core import check_manifest
from keras_llm.layers.adapter_bank import AdapterBank, RowChoice
from keras_llm.models.adapter_folder import (
    CARD,
    Path,
    check_base,
    learnt_whole,
    read_saved,
)
from keras_llm.models.adapters import has_adapter, projections


class SeveralAdapters:
    """What a model holds of several adapters that it was given at once.

    Attributes:
        names: Of the adapters, in their order; row number 0 stands for none.
        choice: Which adapter each row takes.
        variables: What they compute with; not among the model's weights.
    """

    def __init__(self, names: Sequence[str]):
        self.names = tuple(names)
        self.choice = RowChoice()
        self.variables: list[Any] = []


def add_adapters(model: keras.Model, folders: Mapping[str, Path], base: Path) -> None:
    """Gives a model several saved adapters, of which each row of a batch takes one.

    Nothing is merged: without a choice the model computes as before. An export of it
    has the input `adapter`.

    Args:
        model: The base, from `models.load(base)`.
        folders: Name to adapter folder; the name "" stands for none of them.
        base: The model folder that `model` is from.

    Raises:
        ValueError: No adapter, an empty name, an adapter of another base or with
            weights that it learnt whole, or a model that has an adapter.
        core.CorruptFolderError: As in `load_adapter`.
    """
    if not folders or "" in folders:
        raise ValueError(
            'Adapters are given by names; "" stands for none of them. Received the '
            f"names {list(folders)}."
        )
    if has_adapter(model) or several_adapters(model):
        raise ValueError(
            "Adapters are given to a plain model. Received: a model that has some. "
            "Load it anew."
        )
    found = []
    for folder in folders.values():
        check_manifest(folder, editable=(CARD,))
        check_base(base, folder)
        if learnt_whole(folder):
            raise ValueError(
                "Adapters in one model share its head. Received: "
                f"{folder}, which has a head of its own. Export it alone "
                "(`--model`)."
            )
        found.append(read_saved(model, folder).parts)
    several = SeveralAdapters(list(folders))
    for path, linear in projections(model).items():
        parts = [own[path][1] if path in own else None for own in found]
        if any(parts):
            linear.bank = AdapterBank(linear, parts, several.choice)
            several.variables += linear.bank.variables
    model.several_adapters = several


def several_adapters(model: keras.Model) -> SeveralAdapters | None:
    """Returns what `add_adapters` gave a model, None for others."""
    return getattr(model, "several_adapters", None)
