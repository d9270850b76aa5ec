"""ELECTRA in two checkpoints, generator and discriminator: `electra` here.

Each lies in a folder of its name. Both hold the embeddings, which are one here.
"""

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from keras_llm import models
from keras_llm.convert import bert, electra, fitting
from keras_llm.convert.family import Family, UnsupportedModelError
from keras_llm.convert.safetensors_folder import TensorFolder, open_tensors
from keras_llm.convert.tokenizer_files import checked_tokenizer
from keras_llm.convert.weights import Weight
from keras_llm.core import CorruptFolderError
from keras_llm.models import BertConfig, ElectraConfig

_GENERATOR, _DISCRIMINATOR = "generator", "discriminator"
_PREFIX = "generator_"  # Before our names of the generator's own weights.


class Half(NamedTuple):
    """One of the two checkpoints.

    Attributes:
        name: Of its folder.
        family: Maps it to the whole of our model.
        config: Ours of this half.
    """

    name: str
    family: Family
    config: BertConfig


def _generator_weights(config: BertConfig) -> list[Weight]:
    found = electra.trunk_weights(config, electra.TRUNK, _PREFIX)
    for ours, theirs in electra.GENERATOR_HEAD.items():
        found += bert.pair(f"{_PREFIX}{ours}", theirs)
    return [*found, electra.output_bias()]


def _discriminator_weights(config: BertConfig) -> list[Weight]:
    found = electra.trunk_weights(config, electra.TRUNK)
    for ours, theirs in electra.DISCRIMINATOR_HEAD.items():
        found += bert.pair(ours, theirs)
    return found


_ALONE = {family.model_class: family for family in electra.FAMILIES}
_FAMILIES = {
    _GENERATOR: dataclasses.replace(
        _ALONE["ElectraForMaskedLM"], weights=_generator_weights
    ),
    _DISCRIMINATOR: dataclasses.replace(
        _ALONE["ElectraForPreTraining"],
        weights=_discriminator_weights,
        not_weights=electra.NOT_WEIGHTS,
    ),
}


def halves(config: ElectraConfig) -> list[Half]:
    """Returns both halves of a model of ours."""
    configs = {_GENERATOR: config.generator, _DISCRIMINATOR: config.discriminator}
    return [Half(name, _FAMILIES[name], half) for name, half in configs.items()]


def is_pair(root: pathlib.Path) -> bool:
    """Returns whether a folder holds both checkpoints and none itself."""
    return not (root / "config.json").exists() and all(
        (root / name / "config.json").exists() for name in _FAMILIES
    )


def import_pair(
    root: pathlib.Path,
    out: str | os.PathLike[str],
    ignored_fields: Collection[str],
    with_tokenizer: bool,
) -> None:
    """Reads both checkpoints into one model folder; arguments as `import_folder`'s.

    Raises:
        UnsupportedModelError: The two are not a generator and a discriminator of one
            depth, whose sizes have one ratio.
        core.CorruptFolderError: As in `import_folder`; or their embeddings differ.
    """
    values = {name: fitting.read_values(root / name) for name in _FAMILIES}
    found = [_read_config(name, values[name], ignored_fields) for name in (*_FAMILIES,)]
    config = _joined_config(*found)
    tokenizer = None
    for name in (_DISCRIMINATOR, _GENERATOR):
        if with_tokenizer and tokenizer is None:
            tokenizer = checked_tokenizer(root / name, values[name], config.vocab_size)
    with contextlib.ExitStack() as stack:
        sides = []
        for half in halves(config):
            tensors = stack.enter_context(open_tensors(root / half.name))
            fitting.check_sizes(half.config, tensors)
            sides.append((half, tensors))
        model = models.skeleton(config)
        sources: dict[str, list[tuple[Weight, TensorFolder]]] = {}
        for half, tensors in sides:
            for weight in fitting.weights_as_in(
                tensors, half.family, half.config, model
            ):
                sources.setdefault(weight.ours, []).append((weight, tensors))
        paths = [weight.path for weight in model.weights]
        models.save_values(model, _values(paths, sources), out, tokenizer)


def _read_config(
    name: str, values: Mapping[str, Any], ignored_fields: Collection[str]
) -> BertConfig:
    family = _FAMILIES[name]
    given = (values.get("model_type"), values.get("architectures"))
    if given != (family.model_type, [family.model_class]):
        raise UnsupportedModelError(
            f"The folder {name!r} must hold an {family.model_class}. Received: "
            f"model_type={given[0]!r}, architectures={given[1]!r}."
        )
    return electra.complete(family.read_config(values, ignored_fields))


def _joined_config(generator: BertConfig, discriminator: BertConfig) -> ElectraConfig:
    """Returns the config of both, if ours can say what they are."""
    config = ElectraConfig(
        **{
            name: getattr(discriminator, name)
            for name in ElectraConfig(vocab_size=1).to_dict()
            if name != "generator_fraction"
        },
        generator_fraction=min(1.0, generator.width / discriminator.width),
    )
    wanted, given = (
        electra.complete(half).to_dict() for half in (config.generator, generator)
    )
    differing = [
        f"{name}={given[name]} instead of {value}"
        for name, value in wanted.items()
        if given[name] != value
    ]
    if differing:
        raise UnsupportedModelError(
            "A generator must have the discriminator's depth and embeddings, and the "
            "same share of its width, heads and feed-forward width. Received: a "
            f"generator with {', '.join(differing)}. Import one of the two alone."
        )
    return config


def _values(
    paths: list[str], sources: Mapping[str, list[tuple[Weight, TensorFolder]]]
) -> Iterator[tuple[str, np.ndarray]]:
    """Yields the path and the values of each of our weights."""
    for path in paths:
        first, *others = (
            weight.join([tensors.read(name) for name in weight.theirs])
            for weight, tensors in sources[path]
        )
        for other in others:
            if not np.array_equal(first, other):
                raise CorruptFolderError(
                    f"Generator and discriminator must have the same `{path}`: they "
                    "share their embeddings here. They differ. Import one of the two "
                    "alone."
                )
        yield path, first
