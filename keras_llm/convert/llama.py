"""Llama's checkpoints, of versions 1 to 3, and Mistral's: `llama` here.

SmolLM2 and many others are Llamas by their config.
"""

import dataclasses
from typing import Any

from keras_llm.convert.family import (
    Family,
    Field,
    Own,
    Translation,
    UnsupportedModelError,
)
from keras_llm.convert.weights import Weight
from keras_llm.models import LlamaConfig, RotaryScaling

_SCALING = {
    "factor": "factor",
    "low_freq_factor": "low_frequency_factor",
    "high_freq_factor": "high_frequency_factor",
    "original_max_position_embeddings": "original_positions",
}


@dataclasses.dataclass(frozen=True)
class Rotary:
    """The rotation's base and, in a Llama, its scaling.

    Since version 5 of Transformers they are one field, `rope_parameters`; before,
    `rope_theta` and `rope_scaling`. Both are written, so that no reader takes a base
    of 10,000 for want of one, and where both are read, they must agree.

    Attributes:
        scales: Whether our model has a scaling.
    """

    scales: bool = True

    def read(self, values: dict[str, Any]) -> dict[str, Any]:
        """Returns `rotary_base`, and `rotary_scaling` where ours has that."""
        given = [values.pop(name, None) for name in ("rope_parameters", "rope_scaling")]
        parts = [{**part} for part in given if part is not None]
        bases = [part.pop("rope_theta") for part in parts if "rope_theta" in part]
        if values.get("rope_theta") is not None:
            bases.append(values["rope_theta"])
        values.pop("rope_theta", None)
        scalings = [_scaling(part) for part in parts]
        if len(set(bases)) > 1 or len(set(scalings)) > 1:
            raise UnsupportedModelError(
                "`rope_parameters` must agree with `rope_theta` and `rope_scaling`. "
                f"Received: {given}, bases {bases}."
            )
        base, scaling = (*bases, 10_000.0)[0], (*scalings, None)[0]
        if self.scales:
            return {"rotary_base": base, "rotary_scaling": scaling}
        if scaling is not None:
            raise UnsupportedModelError(
                f"Our model scales no rotary positions. Received: {given}."
            )
        return {"rotary_base": base}

    def write(self, config: Any) -> dict[str, Any]:
        """Returns the fields of both generations."""
        scaling = config.rotary_scaling if self.scales else None
        theirs = {"rope_type": "default"}
        if scaling is not None:
            theirs = {"rope_type": "llama3"} | {
                name: getattr(scaling, ours) for name, ours in _SCALING.items()
            }
        return {
            "rope_theta": config.rotary_base,
            "rope_scaling": None if scaling is None else theirs,
            "rope_parameters": {**theirs, "rope_theta": config.rotary_base},
        }


def _scaling(part: dict[str, Any]) -> RotaryScaling | None:
    """Returns the scaling that a dict of theirs, without its base, describes."""
    kinds = {part.pop(name) for name in ("rope_type", "type") if name in part}
    if kinds <= {"default"} and not part:
        return None
    if kinds != {"llama3"} or set(part) != set(_SCALING):
        raise UnsupportedModelError(
            "A scaling of rotary positions must be of the kind 'llama3', with exactly "
            f"the fields {', '.join(_SCALING)}. Received: {sorted(map(str, kinds))} "
            f"with {part}."
        )
    return RotaryScaling(**{ours: part[name] for name, ours in _SCALING.items()})


def fields(*more: Translation, scales: bool = True) -> tuple[Translation, ...]:
    """Returns `more` and the fields that all families of this design share."""
    return (
        *more,
        Field("vocab_size", "vocab_size"),
        Field("hidden_size", "width"),
        Field("intermediate_size", "feed_forward_width"),
        Field("num_hidden_layers", "num_layers"),
        Field("num_attention_heads", "num_heads"),
        Field("max_position_embeddings", "max_positions"),
        Field("rms_norm_eps", "epsilon"),
        Rotary(scales),
        Own("dropout", 0.0),
        Own("separator_id", None),
    )


def complete(config: LlamaConfig) -> LlamaConfig:
    """Returns the config with its derived sizes filled in."""
    return config.replace(
        feed_forward_width=config.inner_dim,
        head_size=config.head_size or config.width // config.num_heads,
        key_value_heads=config.key_value_heads or config.num_heads,
    )


def weights(config: Any) -> list[Weight]:
    """Returns the mapping of a complete config of this design."""
    found = [
        Weight("token_embedding/embeddings", ("model.embed_tokens.weight",)),
        Weight("final_norm/scale", ("model.norm.weight",)),
    ]
    if not getattr(config, "tied", True):
        found.append(Weight("head/kernel", ("lm_head.weight",), transposed=True))
    for i in range(config.num_layers):
        found += _block(config, f"block_{i}", f"model.layers.{i}")
    return found


def _block(config: Any, ours: str, theirs: str) -> list[Weight]:
    """Returns the mapping of one block; their projections are stored [out, in]."""
    size = config.head_size
    sizes = (config.num_heads * size, *[config.key_value_heads * size] * 2)

    def projections(*names: str) -> tuple[str, ...]:
        return tuple(f"{theirs}.{name}_proj.weight" for name in names)

    query_key_value = ("self_attn.q", "self_attn.k", "self_attn.v")
    found = [
        Weight(f"{ours}/attention_norm/scale", (f"{theirs}.input_layernorm.weight",)),
        Weight(
            f"{ours}/attention/query_key_value/kernel",
            projections(*query_key_value),
            transposed=True,
            sizes=sizes,
        ),
        Weight(
            f"{ours}/attention/output/kernel",
            projections("self_attn.o"),
            transposed=True,
        ),
        Weight(
            f"{ours}/feed_forward/inner/kernel",
            projections("mlp.gate", "mlp.up"),
            transposed=True,
        ),
        Weight(
            f"{ours}/feed_forward/output/kernel",
            projections("mlp.down"),
            transposed=True,
        ),
    ]
    norms = {"feed_forward_norm": "post_attention_layernorm"}
    if getattr(config, "post_norm", False):
        norms = {
            "attention_post_norm": "post_attention_layernorm",
            "feed_forward_norm": "pre_feedforward_layernorm",
            "feed_forward_post_norm": "post_feedforward_layernorm",
        }
    if getattr(config, "query_key_norm", False):
        norms["attention/query_norm"] = "self_attn.q_norm"
        norms["attention/key_norm"] = "self_attn.k_norm"
    for own, name in norms.items():
        found.append(Weight(f"{ours}/{own}/scale", (f"{theirs}.{name}.weight",)))
    if getattr(config, "query_key_value_bias", False):
        biases = tuple(f"{theirs}.{name}_proj.bias" for name in query_key_value)
        found.append(
            Weight(f"{ours}/attention/query_key_value/bias", biases, sizes=sizes)
        )
    return found


def copies(config: Any) -> dict[str, str]:
    """Returns what a file may repeat: the head of a model that ties it."""
    tied = getattr(config, "tied", True)
    return {"lm_head.weight": "model.embed_tokens.weight"} if tied else {}


# The angles of rotary positions, which old files keep.
NOT_WEIGHTS = r"(model\.)?layers\.\d+\.self_attn\.rotary_emb\.inv_freq"
_HEADS = (
    Field("num_key_value_heads", "key_value_heads", default=None),
    Field("head_dim", "head_size", default=None),
    Field("tie_word_embeddings", "tied", default=False),
)

LLAMA = Family(
    model_type="llama",
    model_class="LlamaForCausalLM",
    trunk_class="LlamaModel",
    prefix="model.",
    config=LlamaConfig,
    fields=fields(*_HEADS),
    always={"query_key_norm": False, "query_key_value_bias": False, "window": None},
    fixed={
        "attention_bias": False,
        "attention_dropout": 0.0,
        "hidden_act": "silu",
        "mlp_bias": False,
    },
    silent={"pretraining_tp": 1},  # In how many pieces the same sums are taken.
    obsolete={"is_llama_config": True, "rope_interleaved": False},
    complete=complete,
    weights=weights,
    copies=copies,
    not_weights=NOT_WEIGHTS,
)

MISTRAL = Family(
    model_type="mistral",
    model_class="MistralForCausalLM",
    trunk_class="MistralModel",
    prefix="model.",
    config=LlamaConfig,
    fields=fields(
        Field("num_key_value_heads", "key_value_heads", default=8),
        Field("head_dim", "head_size", default=None),
        Field("tie_word_embeddings", "tied", default=False),
        Field("sliding_window", "window", default=4_096),
    ),
    always={"query_key_norm": False, "query_key_value_bias": False},
    fixed={"attention_dropout": 0.0, "hidden_act": "silu"},
    silent={},
    obsolete={},
    complete=complete,
    weights=weights,
    copies=copies,
    not_weights=NOT_WEIGHTS,
)
