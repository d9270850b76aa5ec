"""Models whose matrices are kept in eight bits."""

from typing import Any

import keras

from keras_llm.layers import Linear, TokenEmbedding
from keras_llm.layers.quantized import QuantizedKernel, QuantizedTable
from keras_llm.layers.walking import sublayers
from keras_llm.models.adapters import has_adapter
from keras_llm.models.prompts import prompt_ids


def quantize(model: keras.Model) -> None:
    """Rounds the kernels of a model's projections and its tables of tokens to int8.

    Weight-only, a scale for each output of a projection and for each token, without
    calibration. Norms, biases, positions and recurrent kernels stay as they are, and
    so do adapters that rows choose from, and a learnt prompt. There is no way back, and
    the model is not to be trained: load it anew.

    Args:
        model: A built model, changed in place.

    Raises:
        ValueError: It is quantised already, or learns an adapter.

    >>> from keras_llm import models
    >>> model = models.build(models.LlamaConfig(
    ...     vocab_size=11, width=8, num_layers=1, num_heads=2))
    >>> quantize(model)
    >>> {weight.dtype for weight in quantized_weights(model)} == {"float32", "int8"}
    True
    """
    if quantized_weights(model) is not None:
        raise ValueError("A model is quantised once. Received: one that is. Load it.")
    if has_adapter(model) and not prompt_ids(model):
        raise ValueError(
            "A model is quantised without an adapter that learns. Merge it first: "
            "models.merged(model)."
        )
    for layer in sublayers(model):
        if isinstance(layer, Linear) and layer.built:
            layer.packed = QuantizedKernel(layer)
        elif isinstance(layer, TokenEmbedding) and layer.built:
            layer.quantized = QuantizedTable(layer)


def quantized_weights(model: keras.Model) -> list[Any] | None:
    """Returns the variables that a quantised model computes with, None of others."""
    replaced: dict[int, list[Any]] = {}
    for layer in sublayers(model):
        if isinstance(layer, Linear) and isinstance(layer.packed, QuantizedKernel):
            replaced[id(layer.kernel)] = layer.packed.variables
        elif isinstance(layer, TokenEmbedding) and layer.quantized is not None:
            replaced[id(layer.embeddings)] = layer.quantized.variables
    if not replaced:
        return None
    weights: list[Any] = []
    for weight in model.weights:
        weights += replaced.get(id(weight), [weight])
    return weights
