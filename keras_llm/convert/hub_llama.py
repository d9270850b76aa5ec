"""KerasHub's Llama, Mistral and Qwen backbones as checkpoints of Transformers."""

from typing import Any

from keras_llm import models
from keras_llm.convert.family import UnsupportedModelError
from keras_llm.convert.hub_tensors import (
    HubTensors,
    add_untied,
    as_is,
    flat,
    hub_values,
    merged_rows,
    rows,
    tables,
)


def llama(backbone: Any, max_positions: int | None) -> tuple[dict, HubTensors]:
    """Returns the config and the tensors of a backbone."""
    scaling: dict[str, Any] = {"rope_type": "default"}
    if backbone.rope_frequency_adjustment_factor is not None:
        scaling = {
            "rope_type": "llama3",
            "factor": backbone.rope_frequency_adjustment_factor,
            "low_freq_factor": backbone.rope_low_freq_factor,
            "high_freq_factor": backbone.rope_high_freq_factor,
            "original_max_position_embeddings": (
                backbone.rope_pretraining_sequence_length
            ),
        }
    _check_unscaled(backbone.rope_position_scaling_factor)
    values = _llama_values("llama", backbone, max_positions)
    values["rope_parameters"] = {**scaling, "rope_theta": values.pop("rope_theta")}
    return values, _llama_tensors(backbone)


def mistral(backbone: Any, max_positions: int | None) -> tuple[dict, HubTensors]:
    """Returns the config and the tensors of a backbone."""
    _check_unscaled(backbone.rope_scaling_factor)
    values = _llama_values("mistral", backbone, max_positions)
    values |= {"sliding_window": backbone.sliding_window, "head_dim": backbone.head_dim}
    return values, _llama_tensors(backbone)


def qwen(backbone: Any, max_positions: int | None) -> tuple[dict, HubTensors]:
    """Returns the config and the tensors of a backbone."""
    _check_unscaled(backbone.rope_scaling_factor)
    if backbone.use_sliding_window_attention:
        raise UnsupportedModelError(
            "A Qwen backbone must have no window, which KerasHub gives to some blocks "
            "alone. Received: use_sliding_window_attention=True."
        )
    values = _llama_values("qwen2", backbone, max_positions)
    biases = {
        f"self_attn.{name[0]}_proj.bias": (flat, f"self_attention/{name}/bias")
        for name in ("query", "key", "value")
    }
    return values, _llama_tensors(backbone, biases)


def _llama_values(kind: str, backbone: Any, max_positions: int | None) -> dict:
    default = models.LlamaConfig.max_positions
    return hub_values(
        kind,
        backbone,
        hidden_size=backbone.hidden_dim,
        intermediate_size=backbone.intermediate_dim,
        num_hidden_layers=backbone.num_layers,
        num_attention_heads=backbone.num_query_heads,
        num_key_value_heads=backbone.num_key_value_heads,
        max_position_embeddings=max_positions or default,
        rms_norm_eps=backbone.layer_norm_epsilon,
        rope_theta=float(backbone.rope_max_wavelength),
        tie_word_embeddings=backbone.token_embedding.tie_weights,
        dropout=float(backbone.dropout),
    )


def _llama_tensors(backbone: Any, more: dict | None = None) -> HubTensors:
    tensors = tables(
        backbone,
        {
            "model.embed_tokens.weight": "token_embedding/embeddings",
            "model.norm.weight": "sequence_output_layernorm/scale",
        },
    )
    add_untied(tensors, backbone)
    names = {
        "input_layernorm.weight": (as_is, "self_attention_layernorm/scale"),
        "post_attention_layernorm.weight": (as_is, "feedforward_layernorm/scale"),
        "self_attn.o_proj.weight": (
            merged_rows,
            "self_attention/attention_output/kernel",
        ),
        "mlp.gate_proj.weight": (rows, "feedforward_gate_dense/kernel"),
        "mlp.up_proj.weight": (rows, "feedforward_intermediate_dense/kernel"),
        "mlp.down_proj.weight": (rows, "feedforward_output_dense/kernel"),
        **(more or {}),
    }
    for part in ("query", "key", "value"):
        path = f"self_attention/{part}/kernel"
        names[f"self_attn.{part[0]}_proj.weight"] = (rows, path)
    for i, layer in enumerate(backbone.transformer_layers):
        tensors.add_block(f"model.layers.{i}", layer, names)
    return tensors


def _check_unscaled(factor: float) -> None:
    if factor != 1:
        raise UnsupportedModelError(
            "Rotary positions may be scaled as in Llama 3 alone. Received: a scaling "
            f"by {factor}."
        )
