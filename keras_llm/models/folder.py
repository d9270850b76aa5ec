"""Model folders: a config, weights, a tokenizer and a card; no code, no pickle."""

import contextlib
import math
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import numpy as np
import safetensors

import keras_llm
from keras_llm.core import (
    CorruptFolderError,
    check_manifest,
    new_folder,
    read_json,
    write_json,
    write_manifest,
    write_tensors,
)
from keras_llm.models import adapter_folder, adapters, prompts
from keras_llm.models.architectures import (
    architecture,
    build,
    count_parameters,
    skeleton,
)
from keras_llm.models.transfer import transfer_weights

_CONFIG = "config.json"
_WEIGHTS = "model.safetensors"
_TOKENIZER = "tokenizer"
_CARD = "README.md"

Path = str | os.PathLike[str]


def save(model: keras.Model, folder: Path, tokenizer: Any = None) -> None:
    """Writes a model folder: whole, or not at all.

    It holds `config.json` (architecture and sizes), `model.safetensors` (every
    weight under its path in the model, such as
    `block_0/attention/query_key_value/kernel`, in float32), `tokenizer/`, the card
    `README.md`, and `manifest.json` with every file's SHA-256.

    Args:
        model: A model from `models.build` or `models.load`.
        folder: Where to; it must not exist.
        tokenizer: The tokenizer that made its ids, or None to save none.

    Raises:
        ValueError: The model has an adapter: it is merged first, or saved alone.
        FileExistsError: `folder` exists.
        core.DiskFullError: The disk is full.
    """
    prompts.refuse_prompt(
        model,
        "A model folder holds a plain model.",
        "Save the prompt alone by models.save_adapter.",
    )
    if adapters.has_adapter(model):
        raise ValueError(
            "A model folder holds a plain model. Received: a model with an adapter. "
            "Save models.merged(model), or the adapter alone by models.save_adapter."
        )
    values = (
        (weight.path, keras.ops.convert_to_numpy(weight)) for weight in model.weights
    )
    save_values(model, values, folder, tokenizer)


def save_values(
    model: keras.Model,
    values: Iterable[tuple[str, np.ndarray]],
    folder: Path,
    tokenizer: Any = None,
) -> None:
    """Writes a model folder with other values than the model's own.

    Together with `skeleton` it writes a model that was never in memory as a whole.

    Args:
        model: A model, or the skeleton of one.
        values: Yields (path, values) of every weight in the order of
            `model.weights`; one at a time is held in memory.
        folder: Where to; it must not exist.
        tokenizer: As in `save`.

    Raises:
        ValueError: `values` gives other names, another order or other shapes.
        FileExistsError: `folder` exists.
        core.DiskFullError: The disk is full.
    """
    shapes = {weight.path: tuple(weight.shape) for weight in model.weights}
    with new_folder(folder, 4 * sum(map(math.prod, shapes.values()))) as temporary:
        write_tensors(temporary / _WEIGHTS, shapes, values)
        write_json(
            temporary / _CONFIG,
            {
                "architecture": model.config.architecture,
                "config": model.config.to_dict(),
                "keras_llm_version": keras_llm.__version__,
            },
        )
        if tokenizer is not None:
            tokenizer.save(temporary / _TOKENIZER)
        (temporary / _CARD).write_text(_card(model, tokenizer), encoding="utf-8")
        write_manifest(temporary)


def load_config(folder: Path) -> Any:
    """Returns the config of a model folder, or of the model that an adapter is of.

    Raises:
        FileNotFoundError: There is no config.
        ValueError: It is malformed, or of an architecture that is not known.
    """
    path = _model_folder(folder) / _CONFIG
    values = read_json(path)
    if adapter_folder.is_adapter_folder(folder):
        values = adapter_folder.own_config(folder) or values
    if not isinstance(values, dict) or not {"architecture", "config"} <= set(values):
        raise ValueError(
            "A model's config.json holds `architecture` and `config`. "
            f"Received: {path}."
        )
    return architecture(values["architecture"]).config.from_dict(values["config"])


def load(folder: Path, dtype: Any = None) -> keras.Model:
    """Reads a model folder, or an adapter's folder with the model that it is of.

    Args:
        folder: Written by `save`. Its card, `README.md`, may have been edited. Of one
            written by `save_adapter`, the base is read, and the adapter merged; a
            prompt, which cannot be, the base has in its table of tokens.
        dtype: A dtype or policy for every layer; None for Keras' global policy.

    Raises:
        FileNotFoundError: There is no such folder, or it is of another kind.
        core.CorruptFolderError: A file differs from the manifest, or the weights
            do not fit the config; the message names the file or the weight.
        ValueError: The adapter's base holds other weights than it did.
    """
    if adapter_folder.is_adapter_folder(folder):
        model = load(adapter_folder.base_folder(folder), dtype)
        if adapter_folder.own_config(folder):
            whole = build(load_config(folder), dtype)
            transfer_weights(model, whole)
            model = whole
        adapter_folder.apply_folder(model, folder)
        return model
    model = build(_checked_config(folder), dtype)
    load_weights(model, pathlib.Path(folder) / _WEIGHTS)
    return model


def merged(model: keras.Model) -> keras.Model:
    """Returns the plain model that does the same as one with an adapter.

    Raises:
        ValueError: The adapter is a prompt, which no plain model has a place for.

    >>> from keras_llm import models
    >>> config = models.GPT2Config(vocab_size=11, width=8, num_layers=1, num_heads=2)
    >>> model = models.build(config)
    >>> before = len(model.weights)
    >>> models.add_adapter(model, models.AdapterConfig(rank=2))
    >>> len(model.weights) - before, len(models.merged(model).weights) - before
    (8, 0)
    """
    prompts.refuse_prompt(
        model,
        "What is merged becomes part of kernels.",
        "Use it as it is, or save it by models.save_adapter.",
    )
    plain = build(model.config, model.dtype_policy)
    values = dict(adapters.merged_values(model))
    for weight in plain.weights:
        weight.assign(values[weight.path])
    return plain


def load_weights(model: keras.Model, path: Path) -> None:
    """Fills a model from a safetensors file, one weight in memory at a time.

    Nothing is assigned unless every name and shape fits.

    Raises:
        core.CorruptFolderError: The file is malformed; or a weight is missing, left
            over or of another shape.
    """
    with _open(model, path) as read:
        for weight in model.weights:
            weight.assign(read(weight.path))


@contextlib.contextmanager
def open_values(
    folder: Path,
) -> Iterator[tuple[keras.Model, Callable[[str], np.ndarray]]]:
    """Opens a model folder without loading the model.

    Args:
        folder: Written by `save`.

    Yields:
        The skeleton of the model, and the function from a weight's path to its
        values in float32, which are read when it is called.

    Raises:
        FileNotFoundError, core.CorruptFolderError: As in `load`.
    """
    model = skeleton(_checked_config(folder))
    with _open(model, pathlib.Path(folder) / _WEIGHTS) as read:
        yield model, read


def _checked_config(folder):
    """Returns the config of a folder that is whole."""
    _check_is_model_folder(pathlib.Path(folder))
    check_manifest(folder, editable=(_CARD,))
    return load_config(folder)


@contextlib.contextmanager
def _open(model, path):
    """Yields the function from a weight's path to its values; all of them fit."""
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            _check_fit({weight.path: weight for weight in model.weights}, file, path)
            yield file.get_tensor
    except safetensors.SafetensorError as error:
        raise CorruptFolderError(f"{path} is no safetensors file: {error}.") from error


def has_tokenizer(folder: Path) -> bool:
    """Returns whether a model folder holds a tokenizer."""
    return (_model_folder(folder) / _TOKENIZER).is_dir()


def load_tokenizer(folder: Path) -> Any:
    """Returns the tokenizer of a model folder, or of an adapter's.

    Conversations of a prompt's begin with its vectors; else it is the base's.

    Raises:
        FileNotFoundError: The folder holds no tokenizer.
    """
    from keras_llm import tokenizers  # Text ops: not needed for the model alone.

    if not has_tokenizer(folder):
        _check_is_model_folder(_model_folder(folder))
        raise FileNotFoundError(
            f"This model was saved without a tokenizer. Received: {folder}."
        )
    tokenizer = tokenizers.load(_model_folder(folder) / _TOKENIZER)
    if not adapter_folder.is_adapter_folder(folder):
        return tokenizer
    adapter = adapter_folder.saved_config(folder)
    return prompts.prompted_tokenizer(tokenizer, load_config(folder), adapter)


def _model_folder(folder):
    """Returns the folder itself, or the one that an adapter's belongs to."""
    if adapter_folder.is_adapter_folder(folder):
        return adapter_folder.base_folder(folder)
    return pathlib.Path(folder)


def _check_is_model_folder(root):
    """Raises FileNotFoundError, saying what to give instead where that is plain."""
    if (root / "best").is_dir():
        raise FileNotFoundError(
            f"A model folder is needed; {root} holds some. Give {root / 'best'}."
        )
    # Where one of the two is left, the manifest tells what became of the other.
    if any((root / name).is_file() for name in (_CONFIG, _WEIGHTS)):
        return
    remedy = "Check the path."
    if (root / "saved_model.pb").is_file():
        remedy = "That is an export: give the model folder that it was made from."
    raise FileNotFoundError(
        "A model folder is needed, as `models.save` writes it. Received: "
        f"{root}. {remedy}"
    )


def _check_fit(weights, file, path):
    """Raises CorruptFolderError unless names and shapes agree."""
    names = set(file.keys())
    missing = sorted(set(weights) - names)
    left_over = sorted(names - set(weights))
    if missing or left_over:
        raise CorruptFolderError(
            f"The weights in {path} are not those of the config. "
            f"Missing: {missing}; left over: {left_over}."
        )
    for name, weight in weights.items():
        shape = tuple(file.get_slice(name).get_shape())
        if shape != tuple(weight.shape):
            raise CorruptFolderError(
                f"The weight `{name}` in {path} has shape {shape}, but the config "
                f"asks for {tuple(weight.shape)}."
            )


def _card(model, tokenizer):
    """Returns the model card, in Markdown."""
    rows = "\n".join(
        f"| {name} | {value} |" for name, value in model.config.to_dict().items()
    )
    kind = "none" if tokenizer is None else tokenizer.kind
    return f"""# {model.config.architecture}

A model of {count_parameters(model):,} parameters; tokenizer: {kind}.

| field | value |
| --- | --- |
{rows}

```python
from keras_llm import models

model = models.load("FOLDER")
tokenizer = models.load_tokenizer("FOLDER")
```

Data, intended use and limits: to be written by whoever trained it.
"""
