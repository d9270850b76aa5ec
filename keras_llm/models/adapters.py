"""Adapters of a built model: low-rank ones beside its projections, and prompts."""

import dataclasses
import difflib
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import keras
import numpy as np

from keras_llm.core import Config, checks
from keras_llm.layers import Linear, TokenEmbedding
from keras_llm.layers.walking import sublayers
from keras_llm.models import prompts
from keras_llm.models.prompts import PromptConfig

KINDS = ("lora", "rslora", "dora")


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


def adapter_config(values: Mapping[str, Any]) -> AdapterConfig | PromptConfig:
    """Rebuilds an adapter's config, of the class that its `kind` names.

    >>> adapter_config({"kind": "prompt", "tokens": 5}).tokens
    5
    """
    named = isinstance(values, Mapping) and values.get("kind")
    kind = PromptConfig if named == PromptConfig.kind else AdapterConfig
    return kind.from_dict(values)


def add_adapter(
    model: keras.Model,
    config: AdapterConfig | PromptConfig,
    seed: int | None = None,
    learnt_whole: Collection[str] = (),
) -> None:
    """Gives a built model an adapter and freezes everything else.

    At first the model computes what it did before; of the ids of its vocabulary a
    prompt never changes that. Its `weights` have the adapter's among them;
    `trainable_weights` are those alone.

    Args:
        model: From `models.build` or `models.load`.
        config: Its kind, sizes and targets.
        seed: Of what starts at random, and of the dropout; None takes another each
            time.
        learnt_whole: Paths of weights that are not frozen, such as a fresh head's:
            they are learnt as they are and belong to the adapter.

    Raises:
        ValueError: `targets` matches no projection, `learnt_whole` names no weight of
            the model, the model has an adapter, or a prompt is nothing for its
            architecture.

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
    if isinstance(config, PromptConfig):
        vectors = prompts.first_vectors(model, config, seed)
        _freeze(model)
        prompts.start_prompt(model, config, vectors)
        return
    targets = target_projections(model, config.targets)
    if unknown := set(learnt_whole) - {weight.path for weight in model.weights}:
        raise ValueError(
            "`learnt_whole` names weights of the model by their paths. Received: "
            f"{', '.join(sorted(unknown))}, which it has not."
        )
    _freeze(model, learnt_whole)
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
    model.adapter, model.learnt_whole = config, frozenset(learnt_whole)


def _freeze(model, but=()):
    for weight in model.trainable_weights:
        weight.trainable = weight.path in but


def has_adapter(model: keras.Model) -> bool:
    """Returns whether a model has an adapter that is not merged."""
    return getattr(model, "adapter", None) is not None


def adapter_weights(model: keras.Model) -> list[Any]:
    """Returns the weights of a model's adapter, those that it learns whole among them.

    None without an adapter.
    """
    tables = (layer for layer in sublayers(model) if isinstance(layer, TokenEmbedding))
    prompt = [weight for table in tables for weight in table.prompt.weights]
    return _low_rank_weights(model) + prompt + whole_weights(model)


def whole_weights(model: keras.Model) -> list[Any]:
    """Returns the weights that a model's adapter learns whole, such as a head's."""
    paths = getattr(model, "learnt_whole", ())
    return [weight for weight in model.weights if weight.path in paths]


def _low_rank_weights(model):
    return [
        weight
        for linear in projections(model).values()
        for weight in linear.adapter.weights
    ]


def merged_values(model: keras.Model) -> Iterator[tuple[str, np.ndarray]]:
    """Yields (path, values) of the model that does the same without an adapter."""
    own = {id(weight) for weight in _low_rank_weights(model)}
    kernels = {id(linear.kernel): linear for linear in projections(model).values()}
    for weight in model.weights:
        if id(weight) in own:
            continue
        linear = kernels.get(id(weight))
        value: Any = weight
        if linear is not None and linear.adapter.started:
            value = linear.adapter.merged(keras.ops.convert_to_tensor(weight))
        yield weight.path, keras.ops.convert_to_numpy(value)


def projections(model: keras.Model) -> dict[str, Any]:
    """Returns the built projections by path, of which each has a kernel of its own."""
    found = (layer for layer in sublayers(model) if isinstance(layer, Linear))
    return {linear.path: linear for linear in found if linear.built}


def target_projections(model: keras.Model, pattern: str) -> dict[str, Any]:
    """Returns the projections whose path matches, by path.

    Raises:
        ValueError: None does.
    """
    linears = projections(model)
    matching = {p: linear for p, linear in linears.items() if re.search(pattern, p)}
    if not matching:
        nearest = difflib.get_close_matches(pattern, list(linears), n=4, cutoff=0.0)
        raise ValueError(
            "`targets` names projections by their paths. Received: "
            f"{pattern!r}, which matches none. Among them are: {', '.join(nearest)}."
        )
    return matching
