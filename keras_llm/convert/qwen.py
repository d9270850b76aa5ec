"""Qwen's checkpoints, of versions 2 to 3, dense: `llama` here."""

from typing import Any

from keras_llm.convert import llama
from keras_llm.convert.family import (
    Family,
    Field,
    UnsupportedModelError,
    num_layers,
)
from keras_llm.models import LlamaConfig


class _Window:
    """A window for all blocks or for none; theirs may begin at any block."""

    def read(self, values: dict[str, Any]) -> dict[str, Any]:
        """Returns `window`."""
        window = values.pop("sliding_window", 4_096)
        if not values.pop("use_sliding_window", False):
            window = None
        first, layers = values.pop("max_window_layers", 28), num_layers(values)
        near = [window is not None and i >= first for i in range(layers)]
        kinds = [
            "sliding_attention" if is_near else "full_attention" for is_near in near
        ]
        given = values.pop("layer_types", None)
        if given not in (None, kinds) or len(set(kinds)) > 1:
            raise UnsupportedModelError(
                "Either all blocks have a window or none: our `llama` has one for all. "
                f"Received: sliding_window={window}, max_window_layers={first}, "
                f"layer_types={given}."
            )
        return {"window": window if any(near) else None}

    def write(self, config: LlamaConfig) -> dict[str, Any]:
        """Returns their five fields."""
        near = config.window is not None
        kind = "sliding_attention" if near else "full_attention"
        return {
            "sliding_window": config.window,
            "use_sliding_window": near,
            "max_window_layers": 0 if near else config.num_layers,
            "layer_types": [kind] * config.num_layers,
        }


_FIELDS = llama.fields(
    _Window(),  # Reads the number of layers too: before that is taken.
    Field("num_key_value_heads", "key_value_heads"),
    Field("tie_word_embeddings", "tied", default=False),
)

QWEN2 = Family(
    model_type="qwen2",
    model_class="Qwen2ForCausalLM",
    trunk_class="Qwen2Model",
    prefix="model.",
    config=LlamaConfig,
    fields=(*_FIELDS, Field("head_dim", "head_size", default=None)),
    always={"query_key_norm": False, "query_key_value_bias": True},
    fixed={"attention_dropout": 0.0, "hidden_act": "silu"},
    silent={},
    # Multimodal rotary positions, and their own name for an unused switch.
    obsolete={"use_mrope": False},
    complete=llama.complete,
    weights=llama.weights,
    copies=llama.copies,
    not_weights=llama.NOT_WEIGHTS,
)

QWEN3 = Family(
    model_type="qwen3",
    model_class="Qwen3ForCausalLM",
    trunk_class="Qwen3Model",
    prefix="model.",
    config=LlamaConfig,
    fields=(*_FIELDS, Field("head_dim", "head_size", default=128)),
    always={"query_key_norm": True, "query_key_value_bias": False},
    fixed={"attention_bias": False, "attention_dropout": 0.0, "hidden_act": "silu"},
    silent={},
    obsolete={},
    complete=llama.complete,
    weights=llama.weights,
    copies=llama.copies,
    not_weights=llama.NOT_WEIGHTS,
)
