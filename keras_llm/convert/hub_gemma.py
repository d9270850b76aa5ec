"""KerasHub's Gemma backbones as checkpoints of Transformers."""

from typing import Any

from keras_llm import models
from keras_llm.convert.family import UnsupportedModelError
from keras_llm.convert.hub_tensors import (
    HubTensors,
    Layout,
    as_is,
    head_rows,
    hub_values,
    merged_rows,
    rows,
    tables,
)


def gemma(backbone: Any, max_positions: int | None) -> tuple[dict, HubTensors]:
    """Returns the config and the tensors of a backbone."""
    post_norms = (backbone.use_post_attention_norm, backbone.use_post_ffw_norm)
    is_second = all(post_norms)
    if any(post_norms) != is_second:
        raise UnsupportedModelError(
            "A Gemma must norm what both branches add, or neither. Received: "
            f"use_post_attention_norm, use_post_ffw_norm={post_norms}."
        )
    values = hub_values(
        "gemma2" if is_second else "gemma",
        backbone,
        hidden_size=backbone.hidden_dim,
        # KerasHub counts gate and value together.
        intermediate_size=backbone.intermediate_dim // 2,
        num_hidden_layers=backbone.num_layers,
        num_attention_heads=backbone.num_query_heads,
        num_key_value_heads=backbone.num_key_value_heads,
        head_dim=backbone.head_dim,
        max_position_embeddings=max_positions or models.GemmaConfig.max_positions,
        rms_norm_eps=backbone.layer_norm_epsilon,
        dropout=float(backbone.dropout),
    )
    values |= _gemma_attention(backbone, is_second)
    tensors = tables(
        backbone,
        {
            "model.embed_tokens.weight": "token_embedding/embeddings",
            "model.norm.weight": "final_normalization/scale",
        },
    )
    for i, layer in enumerate(backbone.transformer_layers):
        tensors.add_block(f"model.layers.{i}", layer, _block(is_second))
    return values, tensors


def _block(is_second: bool) -> dict[str, tuple[Layout, str]]:
    """Returns the names of one block; version 2 norms each branch before and after."""
    norms = {"input_layernorm": "pre_attention_norm"}
    if is_second:
        norms["post_attention_layernorm"] = "post_attention_norm"
        norms["pre_feedforward_layernorm"] = "pre_ffw_norm"
        norms["post_feedforward_layernorm"] = "post_ffw_norm"
    else:
        norms["post_attention_layernorm"] = "pre_ffw_norm"
    names: dict[str, tuple[Layout, str]] = {
        f"{name}.weight": (as_is, f"{path}/scale") for name, path in norms.items()
    }
    for part in ("query", "key", "value"):
        path = f"attention/{part}/kernel"
        names[f"self_attn.{part[0]}_proj.weight"] = (head_rows, path)
    names |= {
        "self_attn.o_proj.weight": (merged_rows, "attention/attention_output/kernel"),
        "mlp.gate_proj.weight": (rows, "ffw_gating/kernel"),
        "mlp.up_proj.weight": (rows, "ffw_gating_2/kernel"),
        "mlp.down_proj.weight": (rows, "ffw_linear/kernel"),
    }
    return names


def _gemma_attention(backbone: Any, is_second: bool) -> dict[str, Any]:
    """Returns what a Gemma 2 chooses and a first Gemma does not have."""
    divisor = backbone.head_dim
    if not backbone.query_head_dim_normalize:
        divisor = backbone.hidden_dim // backbone.num_query_heads
    chosen = {
        "query_pre_attn_scalar": divisor,
        "attn_logit_softcapping": backbone.attention_logit_soft_cap,
        "final_logit_softcapping": backbone.final_logit_soft_cap,
    }
    windows = backbone.use_sliding_window_attention
    if is_second:
        kinds = ["sliding_attention" if windows else "full_attention", "full_attention"]
        return {
            **chosen,
            "sliding_window": backbone.sliding_window_size,
            "layer_types": [kinds[i % 2] for i in range(backbone.num_layers)],
        }
    plain = {**dict.fromkeys(chosen), "query_pre_attn_scalar": backbone.head_dim}
    if chosen != plain or windows:
        raise UnsupportedModelError(
            "A Gemma without norms after its branches must have no caps and no window. "
            f"Received: {chosen}, use_sliding_window_attention={windows}."
        )
    return {}
