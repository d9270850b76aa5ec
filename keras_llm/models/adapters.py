"""Low-rank adapters of a built model: added, merged, kept in folders of their own."""

import dataclasses
import difflib
import os
import pathlib
import re
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import safetensors

import keras_llm
from keras_llm.core import (
    Config,
    CorruptFolderError,
    check_manifest,
    checks,
    folders,
    new_folder,
    read_json,
    read_manifest,
    write_json,
    write_manifest,
    write_tensors,
)
from keras_llm.layers import Linear
from keras_llm.layers.walking import sublayers
from keras_llm.ops import low_rank

KINDS = ("lora", "rslora", "dora")
_CONFIG = "adapter.json"
_WEIGHTS = "adapter.safetensors"
_CARD = "README.md"

Path = str | os.PathLike[str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdapterConfig(Config):
    """What is learnt beside which frozen projections.

    The kernel's change is scale * down @ up, of rank `rank`: scale is alpha / rank,
    of "rslora" alpha / sqrt(rank). "dora" learns each column's length too.

    >>> AdapterConfig(rank=16, alpha=32).scale
    2.0
    >>> AdapterConfig(kind="rslora", rank=16, alpha=32).scale
    8.0
    """

    kind: str = "lora"  # Or "rslora", "dora".
    rank: int = 8
    alpha: float = 16.0  # Strength: see above.
    dropout: float = 0.0  # Share of the adapter's input dropped while training.
    # Regular expression, searched in the paths of the model's projections, such as
    # block_0/attention/query_key_value, block_0/attention/output,
    # block_0/feed_forward/inner and block_0/feed_forward/output.
    targets: str = r"^block_\d+/"

    def __post_init__(self):
        checks.check_choice("kind", self.kind, KINDS)
        checks.check_positive("rank", self.rank)
        checks.check_positive("alpha", self.alpha)
        if not 0 <= self.dropout < 1:
            raise ValueError(
                "`dropout` must be at least 0 and below 1. "
                f"Received: dropout={self.dropout}."
            )
        try:
            re.compile(self.targets)
        except re.error as error:
            raise ValueError(
                "`targets` must be a regular expression. Received: "
                f"{self.targets!r} ({error})."
            ) from error

    @property
    def scale(self) -> float:
        """Returns the factor on down @ up."""
        return self.alpha / (self.rank**0.5 if self.kind == "rslora" else self.rank)


def add_adapter(
    model: keras.Model, config: AdapterConfig, seed: int | None = None
) -> None:
    """Gives a built model an adapter and freezes everything else.

    At first the model computes what it did before. Its `weights` have the adapter's
    among them; `trainable_weights` are those alone.

    Args:
        model: From `models.build` or `models.load`.
        config: Its kind, sizes and targets.
        seed: Of the weights that start at random, and of the dropout; None takes
            another each time.

    Raises:
        ValueError: `targets` matches no projection, or the model has an adapter.

    >>> from keras_llm import models
    >>> config = models.GPT2Config(vocab_size=11, width=8, num_layers=1, num_heads=2)
    >>> model = models.build(config)
    >>> models.add_adapter(model, models.AdapterConfig(rank=2, targets="attention"))
    >>> [weight.path for weight in model.trainable_weights][:2]
    ['block_0/attention/query_key_value/adapter/down', \
'block_0/attention/query_key_value/adapter/up']
    """
    if has_adapter(model):
        raise ValueError(
            "A model has one adapter at a time. Received: a model that has one. Take "
            "models.merged(model), or load the model anew."
        )
    targets = _targets(model, config.targets)
    for weight in model.trainable_weights:
        weight.trainable = False
    for number, (path, linear) in enumerate(targets.items()):
        linear.adapter.start(
            linear.kernel,
            config.rank,
            config.scale,
            config.dropout,
            config.kind == "dora",
            None if seed is None else seed + number,
            path,
        )
    model.adapter = config


def has_adapter(model: keras.Model) -> bool:
    """Returns whether a model has an adapter that is not merged."""
    return getattr(model, "adapter", None) is not None


def adapter_weights(model: keras.Model) -> list[Any]:
    """Returns the weights of a model's adapter; none without one."""
    return [
        weight
        for linear in _linears(model).values()
        for weight in linear.adapter.weights
    ]


def merged_values(model: keras.Model) -> Iterator[tuple[str, np.ndarray]]:
    """Yields (path, values) of the model that does the same without an adapter."""
    own = {id(weight) for weight in adapter_weights(model)}
    kernels = {id(linear.kernel): linear for linear in _linears(model).values()}
    for weight in model.weights:
        if id(weight) in own:
            continue
        linear = kernels.get(id(weight))
        value: Any = weight
        if linear is not None and linear.adapter.started:
            value = linear.adapter.merged(keras.ops.convert_to_tensor(weight))
        yield weight.path, keras.ops.convert_to_numpy(value)


def save_adapter(model: keras.Model, folder: Path, base: Path) -> None:
    """Writes a model's adapter: whole, or not at all.

    The folder holds `adapter.json`, `adapter.safetensors` and a card; not the weights
    of the base, which it names by path and SHA-256. `models.load` reads it as it reads
    a model folder, and gives the merged model.

    Args:
        model: A model with an adapter.
        folder: Where to; it must not exist.
        base: The model folder that the frozen weights are from.

    Raises:
        ValueError: The model has no adapter.
        FileExistsError: `folder` exists.
        core.DiskFullError: The disk is full.
    """
    if not has_adapter(model):
        raise ValueError(
            "Only an adapter is saved so. Received: a model without one. Give it one "
            "by models.add_adapter, or save it by models.save."
        )
    weights = {weight.path: weight for weight in adapter_weights(model)}
    shapes = {path: tuple(weight.shape) for path, weight in weights.items()}
    folders.check_absent(folder)
    with new_folder(folder) as temporary:
        values = ((p, keras.ops.convert_to_numpy(w)) for p, w in weights.items())
        write_tensors(temporary / _WEIGHTS, shapes, values)
        write_json(
            temporary / _CONFIG,
            {
                "adapter": model.adapter.to_dict(),
                "base": os.path.abspath(base),
                "base_sha256": weights_sha256(base),
                "keras_llm_version": keras_llm.__version__,
            },
        )
        (temporary / _CARD).write_text(_card(model, base), encoding="utf-8")
        write_manifest(temporary)


def is_adapter_folder(folder: Path) -> bool:
    """Returns whether a folder holds an adapter."""
    return (pathlib.Path(folder) / _CONFIG).is_file()


def base_folder(folder: Path) -> pathlib.Path:
    """Returns the model folder that an adapter folder belongs to.

    Raises:
        FileNotFoundError: It is not where it was.
        ValueError: It holds other weights than those that were adapted.
        core.CorruptFolderError: A file of the adapter differs from its manifest.
    """
    check_manifest(folder, editable=(_CARD,))
    described = _description(folder)
    base = pathlib.Path(described["base"])
    if not base.is_dir():
        # Both may have been moved together.
        beside = pathlib.Path(folder).resolve().parent / base.name
        if not beside.is_dir():
            raise FileNotFoundError(
                "An adapter needs the model folder that it was trained on. Received: "
                f"{folder}, of {base}, which is not there. Put that folder back, or "
                f"beside the adapter's, as {beside}."
            )
        base = beside
    _check_base(base, folder)
    return base


def load_adapter(model: keras.Model, folder: Path, base: Path) -> None:
    """Gives a model a saved adapter, to use or to go on training it.

    Args:
        model: The base, from `models.load(base)`.
        folder: Written by `save_adapter`.
        base: The model folder that `model` is from.

    Raises:
        ValueError: `base` is another model than the one that was adapted.
        core.CorruptFolderError: A file differs from the manifest, or the weights do
            not fit the adapter's config.
    """
    check_manifest(folder, editable=(_CARD,))
    _check_base(base, folder)
    add_adapter(model, AdapterConfig.from_dict(_description(folder)["adapter"]))
    weights = {weight.path: weight for weight in adapter_weights(model)}
    values = _read(folder, {p: tuple(w.shape) for p, w in weights.items()})
    for path, weight in weights.items():
        weight.assign(values[path])


def merge_folder(model: keras.Model, folder: Path) -> None:
    """Changes a base's kernels by a saved adapter, which leaves a plain model.

    Args:
        model: The base, without an adapter.
        folder: Written by `save_adapter`, of that base.

    Raises:
        core.CorruptFolderError: The weights do not fit the adapter's config.
    """
    config = AdapterConfig.from_dict(_description(folder)["adapter"])
    targets = _targets(model, config.targets)
    shapes: dict[str, tuple[int, ...]] = {}
    for path, linear in targets.items():
        in_dim, out_dim = linear.kernel.shape
        shapes[f"{path}/adapter/down"] = (in_dim, config.rank)
        shapes[f"{path}/adapter/up"] = (config.rank, out_dim)
        if config.kind == "dora":
            shapes[f"{path}/adapter/magnitude"] = (out_dim,)
    values = _read(folder, shapes)
    for path, linear in targets.items():
        own = f"{path}/adapter"
        kernel = keras.ops.cast(linear.kernel, "float32")
        magnitude = values.get(f"{own}/magnitude")
        down, up = values[f"{own}/down"], values[f"{own}/up"]
        linear.kernel.assign(
            low_rank.merged_kernel(kernel, down, up, config.scale, magnitude)
        )


def weights_sha256(folder: Path) -> str:
    """Returns the SHA-256 of a model folder's weights, as its manifest has it."""
    return read_manifest(folder)["files"]["model.safetensors"]["sha256"]


def _description(folder):
    values = read_json(pathlib.Path(folder) / _CONFIG)
    members = {"adapter": dict, "base": str, "base_sha256": str}
    if not isinstance(values, dict) or not all(
        isinstance(values.get(name), kind) for name, kind in members.items()
    ):
        raise CorruptFolderError(
            f"An adapter's {_CONFIG} holds {', '.join(members)}. Received: {folder}."
        )
    return values


def _check_base(base, folder):
    given, wanted = weights_sha256(base), _description(folder)["base_sha256"]
    if given != wanted:
        raise ValueError(
            "An adapter fits the weights alone that it was trained on. Received: "
            f"{folder}, of weights with SHA-256 {wanted[:12]}; those of {base} have "
            f"{given[:12]}. Give the model folder that it was trained on."
        )


def _read(folder, shapes):
    """Returns the values by path, once names and shapes fit."""
    path = pathlib.Path(folder) / _WEIGHTS
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            names = set(file.keys())
            found = {n: tuple(file.get_slice(n).get_shape()) for n in names}
            if found != shapes:
                wrong = sorted(
                    n for n in names | set(shapes) if found.get(n) != shapes.get(n)
                )
                raise CorruptFolderError(
                    f"The weights in {path} are not those of its config: `{wrong[0]}` "
                    f"has shape {found.get(wrong[0])}, wanted {shapes.get(wrong[0])}."
                )
            return {name: file.get_tensor(name) for name in names}
    except safetensors.SafetensorError as error:
        raise CorruptFolderError(f"{path} is no safetensors file: {error}.") from error


def _linears(model):
    """Returns the built projections by path, of which each has a kernel of its own."""
    found = (layer for layer in sublayers(model) if isinstance(layer, Linear))
    return {linear.path: linear for linear in found if linear.built}


def _targets(model, pattern):
    linears = _linears(model)
    matching = {p: linear for p, linear in linears.items() if re.search(pattern, p)}
    if not matching:
        nearest = difflib.get_close_matches(pattern, list(linears), n=4, cutoff=0.0)
        raise ValueError(
            "`targets` names projections by their paths. Received: "
            f"{pattern!r}, which matches none. Among them are: {', '.join(nearest)}."
        )
    return matching


def _card(model, base):
    config = model.adapter
    size = sum(int(np.prod(w.shape)) for w in adapter_weights(model))
    return f"""# Adapter of {model.config.architecture}

{config.kind}, rank {config.rank}, alpha {config.alpha:g}: {size:,} parameters
beside the frozen weights of `{base}`.

```python
from keras_llm import models

model = models.load("FOLDER")  # The base with the adapter merged into it.
```
"""
