"""Gemma's checkpoints, of versions 1 and 2: `gemma` here."""

from typing import Any

from keras_llm.convert import llama
from keras_llm.convert.family import (
    Family,
    Field,
    UnsupportedModelError,
    num_layers,
)
from keras_llm.models import GemmaConfig

_NEAR, _FULL = "sliding_attention", "full_attention"


class _Activation:
    """The gate's function, by its name in version 1.

    The first files said "gelu" and meant the tanh approximation; Transformers reads
    them so.
    """

    def read(self, values: dict[str, Any]) -> dict[str, Any]:
        """Takes both fields out and refuses another function."""
        names = (
            values.pop("hidden_activation", None),
            values.pop("hidden_act", "gelu_pytorch_tanh"),
        )
        if names[0] not in (None, "gelu_pytorch_tanh") or (
            names[1] not in ("gelu", "gelu_pytorch_tanh")
        ):
            raise UnsupportedModelError(
                "`hidden_act` must be 'gelu_pytorch_tanh', or 'gelu', which Gemma's "
                f"first files mean by it. Received: {names[1]!r}, "
                f"hidden_activation={names[0]!r}."
            )
        return {}

    def write(self, config: GemmaConfig) -> dict[str, Any]:
        """Returns the field."""
        return {"hidden_act": "gelu_pytorch_tanh"}


class _Windows:
    """Which blocks have a window: all, none, or all but every n-th."""

    def read(self, values: dict[str, Any]) -> dict[str, Any]:
        """Returns `window` and `full_every`."""
        window, layers = (
            values.pop("sliding_window", 4_096),
            num_layers(values),
        )
        kinds = values.pop("layer_types", None)
        if kinds is None:
            kinds = [_FULL if i % 2 else _NEAR for i in range(layers)]
        every = kinds.index(_FULL) + 1 if _FULL in kinds else None
        read = {"window": window, "full_every": every}
        if every == 1:
            read = {"window": None, "full_every": None}
        if window is None or kinds != self._kinds(layers, every):
            raise UnsupportedModelError(
                f"`layer_types` must be {_NEAR!r} but for every n-th block, or "
                f"{_FULL!r} throughout. Received: {kinds}, sliding_window={window}."
            )
        return read

    def write(self, config: GemmaConfig) -> dict[str, Any]:
        """Returns both fields."""
        every = 1 if config.window is None else config.full_every
        return {
            "sliding_window": config.window or config.max_positions,
            "layer_types": self._kinds(config.num_layers, every),
        }

    def _kinds(self, layers: int, every: int | None) -> list[str]:
        return [
            _FULL if every is not None and (i + 1) % every == 0 else _NEAR
            for i in range(layers)
        ]


_FIELDS = llama.fields(
    _Windows(),  # Reads the number of layers too: before that is taken.
    Field("num_key_value_heads", "key_value_heads"),
    Field("head_dim", "head_size", default=256),
    scales=False,
)
_FIXED = {
    "attention_bias": False,
    "attention_dropout": 0.0,
    "tie_word_embeddings": True,
    "use_bidirectional_attention": None,
}

GEMMA = Family(
    model_type="gemma",
    model_class="GemmaForCausalLM",
    trunk_class="GemmaModel",
    prefix="model.",
    config=GemmaConfig,
    fields=(_Activation(), *_FIELDS[1:]),
    always={
        "post_norm": False,
        "score_divisor": None,
        "score_soft_cap": None,
        "logit_soft_cap": None,
        "window": None,
        "full_every": None,
    },
    fixed=_FIXED,
    silent={},
    obsolete={},
    complete=lambda config: config,
    weights=llama.weights,
    copies=llama.copies,
    not_weights=llama.NOT_WEIGHTS,
)

GEMMA2 = Family(
    model_type="gemma2",
    model_class="Gemma2ForCausalLM",
    trunk_class="Gemma2Model",
    prefix="model.",
    config=GemmaConfig,
    fields=(
        *_FIELDS,
        Field("query_pre_attn_scalar", "score_divisor", default=256),
        Field("attn_logit_softcapping", "score_soft_cap", default=50.0),
        Field("final_logit_softcapping", "logit_soft_cap", default=30.0),
    ),
    always={"post_norm": True},
    fixed={**_FIXED, "hidden_activation": "gelu_pytorch_tanh"},
    silent={},
    # The same function by another name, and the cache's kind.
    obsolete={"hidden_act": "gelu_pytorch_tanh", "cache_implementation": "hybrid"},
    complete=lambda config: config.replace(
        score_divisor=config.score_divisor or config.head_size
    ),
    weights=llama.weights,
    copies=llama.copies,
    not_weights=llama.NOT_WEIGHTS,
)
