"""KerasHub's T5 backbones as checkpoints of Transformers."""

from typing import Any

import keras
import numpy as np

from keras_llm.convert.family import UnsupportedModelError
from keras_llm.convert.hub_tensors import (
    HubTensors,
    Layout,
    add_untied,
    as_is,
    hub_values,
    rows,
    tables,
)
from keras_llm.ops.activations import activate


def t5(backbone: Any, max_positions: int | None) -> tuple[dict, HubTensors]:
    """Returns the config and the tensors of a backbone."""
    tied = backbone.tie_embedding_weights
    values = hub_values(
        "t5",
        backbone,
        d_model=backbone.hidden_dim,
        d_kv=backbone.key_value_dim or backbone.hidden_dim // backbone.num_heads,
        d_ff=backbone.intermediate_dim,
        num_layers=backbone.num_layers,
        num_decoder_layers=backbone.num_layers,
        num_heads=backbone.num_heads,
        relative_attention_num_buckets=32,  # KerasHub has no others.
        layer_norm_epsilon=backbone.layer_norm_epsilon,
        dropout_rate=backbone.dropout,
        tie_word_embeddings=tied,
        **_t5_activation(backbone),
    )
    if max_positions is not None:
        values["max_positions"] = max_positions
    tensors = tables(
        backbone,
        {
            "shared.weight": "token_embedding/embeddings",
            "encoder.final_layer_norm.weight": "encoder_output_layer_norm/weight",
            "decoder.final_layer_norm.weight": "decoder_output_layer_norm/weight",
        },
    )
    add_untied(tensors, backbone)
    for theirs, layers in (
        ("encoder", backbone.encoder_transformer_layers),
        ("decoder", backbone.decoder_transformer_layers),
    ):
        for i, layer in enumerate(layers):
            names = _t5_block(backbone, theirs == "decoder", first=i == 0)
            tensors.add_block(f"{theirs}.block.{i}.layer", layer, names)
    return values, tensors


def _t5_activation(backbone: Any) -> dict[str, Any]:
    """Returns the fields for the function that the backbone computes.

    It is told by its values: a backbone keeps a function, which may have any name.
    """
    x = np.linspace(-3, 3, 13, dtype=np.float32)
    given = np.asarray(keras.ops.convert_to_numpy(backbone.activation(x)))
    for name, gated, fields in (
        ("gelu_tanh", True, {"feed_forward_proj": "gated-gelu"}),
        ("gelu", True, {"feed_forward_proj": "gated-gelu_python"}),
        ("relu", False, {"feed_forward_proj": "relu"}),
    ):
        wanted = keras.ops.convert_to_numpy(activate(keras.ops.array(x), name))
        is_same = np.abs(given - wanted).max() < 1e-5
        if is_same and gated == backbone.use_gated_activation:
            return fields
    raise UnsupportedModelError(
        "A T5 must have a gated GELU, exact or by tanh, or a plain ReLU. Received: "
        f"activation={backbone.activation}, "
        f"use_gated_activation={backbone.use_gated_activation}."
    )


def _t5_block(
    backbone: Any, is_decoder: bool, first: bool
) -> dict[str, tuple[Layout, str]]:
    """Returns the names of one block; its norms are counted in their order."""
    branches = {"self_attention": ("SelfAttention", 0)}
    if is_decoder:
        branches["cross_attention"] = ("EncDecAttention", 1)
    names: dict[str, tuple[Layout, str]] = {}
    for path, (theirs, place) in branches.items():
        for part in ("query", "key", "value", "output"):
            name = f"{place}.{theirs}.{part[0]}.weight"
            names[name] = (rows, f"{path}/{part}_projector/kernel")
    if first:
        bias = "0.SelfAttention.relative_attention_bias.weight"
        names[bias] = (as_is, "self_attention/embeddings")
    last = len(branches)
    for place in range(last + 1):
        names[f"{place}.layer_norm.weight"] = (as_is, f"norm_{place}")
    dense = f"{last}.DenseReluDense"
    names[f"{dense}.wo.weight"] = (rows, "output_projector/kernel")
    if backbone.use_gated_activation:
        names[f"{dense}.wi_0.weight"] = (rows, "input_projector/kernel")
        names[f"{dense}.wi_1.weight"] = (rows, "gate_projector/kernel")
    else:
        names[f"{dense}.wi.weight"] = (rows, "input_projector/kernel")
    return names
