"""Adapters in folders of their own: small, whole, and bound to their base."""

import math
import os
import pathlib
from typing import Any, NamedTuple

import keras
import numpy as np
import safetensors

import keras_llm
from keras_llm.core import (
    CorruptFolderError,
    check_manifest,
    new_folder,
    read_json,
    read_manifest,
    write_json,
    write_manifest,
    write_tensors,
)
from keras_llm.layers.adapter_bank import Part
from keras_llm.models import prompts
from keras_llm.models.adapters import (
    AdapterConfig,
    adapter_config,
    adapter_weights,
    add_adapter,
    has_adapter,
    target_projections,
    whole_weights,
)
from keras_llm.models.prompts import PromptConfig
from keras_llm.ops import low_rank

_CONFIG = "adapter.json"
_WEIGHTS = "adapter.safetensors"
CARD = "README.md"

Path = str | os.PathLike[str]


class Saved(NamedTuple):
    """What an adapter folder holds for a model.

    Attributes:
        parts: Each projection by path, with its part of the adapter.
        whole: Each weight that is learnt whole, with its values, by path.
    """

    parts: dict[str, tuple[Any, Part]]
    whole: dict[str, tuple[Any, np.ndarray]]


def save_adapter(model: keras.Model, folder: Path, base: Path) -> None:
    """Writes a model's adapter: whole, or not at all.

    The folder holds `adapter.json`, `adapter.safetensors` and a card; not the weights
    of the base, which it names by path and SHA-256. `models.load` reads it as it reads
    a model folder, and gives the merged model, or the base with its prompt. Where
    weights are learnt whole, such as a head that the base lacks, they are in it, with
    the config of the model.

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
    described = {
        "adapter": model.adapter.to_dict(),
        "base": os.path.abspath(base),
        "base_sha256": weights_sha256(base),
        "keras_llm_version": keras_llm.__version__,
    }
    if whole := [weight.path for weight in whole_weights(model)]:
        config = model.config
        described |= {
            "learnt_whole": whole,
            "architecture": config.architecture,
            "config": config.to_dict(),
        }
    with new_folder(folder, 4 * sum(map(math.prod, shapes.values()))) as temporary:
        values = ((p, keras.ops.convert_to_numpy(w)) for p, w in weights.items())
        write_tensors(temporary / _WEIGHTS, shapes, values)
        write_json(temporary / _CONFIG, described)
        (temporary / CARD).write_text(_card(model, base), encoding="utf-8")
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
    check_manifest(folder, editable=(CARD,))
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
    check_base(base, folder)
    return base


def load_adapter(model: keras.Model, folder: Path, base: Path) -> None:
    """Gives a model a saved adapter, to use or to go on training it.

    Args:
        model: The base, from `models.load(base)`; of an adapter with weights that it
            learnt whole, `models.build(models.load_config(folder))` after
            `models.transfer_weights` from that base.
        folder: Written by `save_adapter`.
        base: The model folder that `model` is from.

    Raises:
        ValueError: `base` is another model than the one that was adapted, or `model`
            lacks a weight that was learnt whole.
        core.CorruptFolderError: A file differs from the manifest, or the weights do
            not fit the adapter's config.
    """
    check_manifest(folder, editable=(CARD,))
    check_base(base, folder)
    config = saved_config(folder)
    if isinstance(config, PromptConfig):
        vectors = _saved_vectors(model, folder, config)
        add_adapter(model, config)
        prompts.prompted_table(model).prompt.vectors.assign(vectors)
        return
    saved = read_saved(model, folder)  # First: what does not fit changes nothing.
    add_adapter(model, config, learnt_whole=saved.whole)
    for weight, value in saved.whole.values():
        weight.assign(value)
    for linear, part in saved.parts.values():
        linear.adapter.down.assign(part.down)
        linear.adapter.up.assign(part.up)
        if part.magnitude is not None:
            linear.adapter.magnitude.assign(part.magnitude)


def saved_config(folder: Path) -> AdapterConfig | PromptConfig:
    """Returns the config of an adapter folder."""
    return adapter_config(_description(folder)["adapter"])


def apply_folder(model: keras.Model, folder: Path) -> None:
    """Changes a base's weights by a saved adapter, or gives it the saved prompt.

    The former leaves a plain model.

    Args:
        model: As in `load_adapter`, without an adapter.
        folder: Written by `save_adapter`, of that base.

    Raises:
        core.CorruptFolderError: The weights do not fit the adapter's config.
    """
    config = saved_config(folder)
    if isinstance(config, PromptConfig):
        prompts.start_prompt(model, config, _saved_vectors(model, folder, config))
        return
    saved = read_saved(model, folder)
    for weight, value in saved.whole.values():
        weight.assign(value)
    for linear, part in saved.parts.values():
        kernel = keras.ops.cast(linear.kernel, "float32")
        linear.kernel.assign(low_rank.merged_kernel(kernel, *part))


def own_config(folder: Path) -> dict[str, Any] | None:
    """Returns what is said of an adapter whose model is not its base's, its config too.

    So it is where a head is learnt that the base lacks; None for others.
    """
    described = _description(folder)
    return described if learnt_whole(folder) else None


def learnt_whole(folder: Path) -> list[str]:
    """Returns the paths of the weights that a saved adapter learnt whole."""
    return _description(folder).get("learnt_whole", [])


def read_saved(model: keras.Model, folder: Path) -> Saved:
    """Returns what a saved adapter holds for a model that it fits.

    Raises:
        ValueError: The adapter is a prompt, which changes no projection, or learnt
            weights whole that the model lacks.
        core.CorruptFolderError: The weights do not fit the adapter's config.
    """
    config = saved_config(folder)
    if not isinstance(config, AdapterConfig):
        raise ValueError(
            "Rows of one batch choose among adapters of the projections. Received: "
            f"{folder}, a learnt prompt, which is ids in front of a conversation. "
            "Export it alone, as the model."
        )
    weights = {weight.path: weight for weight in model.weights}
    whole = learnt_whole(folder)
    if missing := [path for path in whole if path not in weights]:
        raise ValueError(
            "An adapter that learnt weights whole is given to a model that has them. "
            f"Received: {folder}, with {', '.join(missing)[:200]}, which the model "
            "lacks. Build it by models.build(models.load_config(folder)), and fill it "
            "from the base by models.transfer_weights."
        )
    targets = target_projections(model, config.targets)
    shapes = {path: tuple(weights[path].shape) for path in whole}
    for path, linear in targets.items():
        in_dim, out_dim = linear.kernel.shape
        shapes[f"{path}/adapter/down"] = (in_dim, config.rank)
        shapes[f"{path}/adapter/up"] = (config.rank, out_dim)
        if config.kind == "dora":
            shapes[f"{path}/adapter/magnitude"] = (out_dim,)
    values = _read(folder, shapes)
    parts = {
        path: (
            linear,
            Part(
                values[f"{path}/adapter/down"],
                values[f"{path}/adapter/up"],
                config.scale,
                values.get(f"{path}/adapter/magnitude"),
            ),
        )
        for path, linear in targets.items()
    }
    return Saved(parts, {path: (weights[path], values[path]) for path in whole})


def _saved_vectors(model, folder, config):
    """Returns the vectors [P, D] of a saved prompt that fits."""
    table = prompts.prompted_table(model)
    name = f"{table.path}/prompt/vectors"
    return _read(folder, {name: (config.tokens, table.width)})[name]


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


def check_base(base: Path, folder: Path) -> None:
    """Raises ValueError unless a model folder holds what an adapter was made for."""
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


def _card(model, base):
    config = model.adapter
    size = sum(int(np.prod(w.shape)) for w in adapter_weights(model))
    if isinstance(config, PromptConfig):
        what = f"A prompt of {config.tokens} learnt vectors before each conversation"
    else:
        what = f"{config.kind}, rank {config.rank}, alpha {config.alpha:g}"
    return f"""# Adapter of {model.config.architecture}

{what}: {size:,} parameters
beside the frozen weights of `{base}`.

{_PROMPT_USE if isinstance(config, PromptConfig) else _MERGED_USE}"""


_MERGED_USE = """```python
from keras_llm import models

model = models.load("FOLDER")  # The base with the adapter merged into it.
```
"""
_PROMPT_USE = """```python
from keras_llm import generation, models

model = models.load("FOLDER")  # The base with the vectors in its table of tokens.
tokenizer = models.load_tokenizer("FOLDER")  # Its conversations begin with them.
generator = generation.Generator(model, tokenizer)
print(generator.chat([[{"role": "user", "content": "Hi"}]])[0].text)
```

The prompt stands before conversations alone: a text that is continued, as by
`generate`, has no place for it, and comes out as the base writes it.
"""
