"""KerasHub's GPT-2 backbones as checkpoints of Transformers."""

from typing import Any

from keras_llm.convert.hub_tensors import (
    HubTensors,
    as_is,
    check_table,
    columns,
    dense,
    hub_values,
    merged,
    norm,
    tables,
)


def gpt2(backbone: Any, max_positions: int | None) -> tuple[dict, HubTensors]:
    """Returns the config and the tensors of a backbone."""
    check_table(backbone, max_positions)
    tensors = tables(
        backbone,
        {
            "transformer.wte.weight": "token_embedding/embeddings",
            "transformer.wpe.weight": "position_embedding/embeddings",
            "transformer.ln_f.weight": "layer_norm/gamma",
            "transformer.ln_f.bias": "layer_norm/beta",
        },
    )
    query_key_value = [f"self_attention/{name}" for name in ("query", "key", "value")]
    for i, layer in enumerate(backbone.transformer_layers):
        tensors.add_block(
            f"transformer.h.{i}",
            layer,
            {
                **norm("ln_1", "self_attention_layer_norm"),
                **norm("ln_2", "feedforward_layer_norm"),
                **dense("attn.c_attn", "+".join(query_key_value), columns),
                **dense("attn.c_proj", "self_attention/attention_output", merged),
                **dense("mlp.c_fc", "feedforward_intermediate_dense", as_is),
                **dense("mlp.c_proj", "feedforward_output_dense", as_is),
            },
        )
    sizes = {
        "n_positions": backbone.max_sequence_length,
        "n_embd": backbone.hidden_dim,
        "n_layer": backbone.num_layers,
        "n_head": backbone.num_heads,
        "n_inner": backbone.intermediate_dim,
    }
    rates = ("attn_pdrop", "embd_pdrop", "resid_pdrop")
    dropout = dict.fromkeys(rates, backbone.dropout)
    return hub_values("gpt2", backbone, **sizes, **dropout), tensors
