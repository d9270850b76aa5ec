"""KerasHub's BERT backbones as checkpoints of Transformers."""

from typing import Any

from keras_llm.convert.hub_tensors import (
    HubTensors,
    as_is,
    check_table,
    dense,
    hub_values,
    merged_rows,
    norm,
    rows,
    tables,
)


def bert(backbone: Any, max_positions: int | None) -> tuple[dict, HubTensors]:
    """Returns the config and the tensors of a backbone."""
    check_table(backbone, max_positions)
    outside = {
        "word_embeddings.weight": "token_embedding/embeddings",
        "position_embeddings.weight": "position_embedding/embeddings",
        "token_type_embeddings.weight": "segment_embedding/embeddings",
        "LayerNorm.weight": "embeddings_layer_norm/gamma",
        "LayerNorm.bias": "embeddings_layer_norm/beta",
    }
    tensors = tables(
        backbone, {f"embeddings.{name}": path for name, path in outside.items()}
    )
    by_path = {weight.path: weight for weight in backbone.weights}
    tensors.add("pooler.dense.weight", rows, by_path["pooled_dense/kernel"])
    tensors.add("pooler.dense.bias", as_is, by_path["pooled_dense/bias"])
    attention = "self_attention_layer"
    names = {
        **norm("attention.output.LayerNorm", f"{attention}_norm"),
        **norm("output.LayerNorm", "feedforward_layer_norm"),
        **dense("attention.output.dense", f"{attention}/attention_output", merged_rows),
        **dense("intermediate.dense", "feedforward_intermediate_dense", rows),
        **dense("output.dense", "feedforward_output_dense", rows),
    }
    for part in ("query", "key", "value"):
        names |= dense(f"attention.self.{part}", f"{attention}/{part}", rows)
    for i, layer in enumerate(backbone.transformer_layers):
        tensors.add_block(f"encoder.layer.{i}", layer, names)
    values = hub_values(
        "bert",
        backbone,
        architectures=["BertModel"],
        hidden_size=backbone.hidden_dim,
        num_hidden_layers=backbone.num_layers,
        num_attention_heads=backbone.num_heads,
        intermediate_size=backbone.intermediate_dim,
        max_position_embeddings=backbone.max_sequence_length,
        type_vocab_size=backbone.num_segments,
        hidden_act="gelu_new",  # KerasHub has the approximation for every BERT.
        hidden_dropout_prob=backbone.dropout,
        attention_probs_dropout_prob=backbone.dropout,
    )
    return values, tensors
