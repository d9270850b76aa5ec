"""T5's checkpoints, of versions 1.0 and 1.1: `t5` here."""

from typing import Any

from keras_llm.convert.family import ANY, Family, Field, Own, UnsupportedModelError
from keras_llm.convert.weights import Weight
from keras_llm.models import T5Config

# By our name: feed_forward_proj, and the two fields that Transformers makes of it.
_ACTIVATIONS = {
    "geglu_tanh": ("gated-gelu", "gelu_new", True),
    # "gated-gelu" means the approximation there; this is its name for the exact one.
    "geglu": ("gated-gelu_python", "gelu_python", True),
    "relu": ("relu", "relu", False),
}
_ACTIVATION_FIELDS = ("feed_forward_proj", "dense_act_fn", "is_gated_act")


class _Activation:
    """Three fields there, one here."""

    def read(self, values: dict[str, Any]) -> dict[str, Any]:
        """Returns `activation`."""
        given = {name: values.pop(name, None) for name in _ACTIVATION_FIELDS}
        given["feed_forward_proj"] = given["feed_forward_proj"] or "relu"
        for ours, theirs in _ACTIVATIONS.items():
            wanted = dict(zip(_ACTIVATION_FIELDS, theirs, strict=True))
            if all(given[name] in (None, wanted[name]) for name in wanted):
                return {"activation": ours}
        raise UnsupportedModelError(
            "`feed_forward_proj` must be 'gated-gelu', 'gated-gelu_python' or 'relu'. "
            f"Received: {given}."
        )

    def write(self, config: T5Config) -> dict[str, Any]:
        """Returns the three fields."""
        return dict(
            zip(_ACTIVATION_FIELDS, _ACTIVATIONS[config.activation], strict=True)
        )


class _Tied:
    """Whether the output is the embedding, scaled.

    Since version 5 Transformers writes `scale_decoder_outputs`, with
    `tie_word_embeddings` true in any case; before, the latter said both.
    """

    def read(self, values: dict[str, Any]) -> dict[str, Any]:
        """Returns `tied`."""
        tied = values.pop("tie_word_embeddings", True)
        return {"tied": values.pop("scale_decoder_outputs", tied)}

    def write(self, config: T5Config) -> dict[str, Any]:
        """Returns both fields, so that both generations understand."""
        return {
            "tie_word_embeddings": config.tied,
            "scale_decoder_outputs": config.tied,
        }


class _StartId:
    """The decoder's first id, which is the padding too."""

    def read(self, values: dict[str, Any]) -> dict[str, Any]:
        """Returns `start_id`."""
        padding = values.get("pad_token_id") or 0
        return {"start_id": values.pop("decoder_start_token_id", padding)}

    def write(self, config: T5Config) -> dict[str, Any]:
        """Returns both ids."""
        return dict.fromkeys(
            ("decoder_start_token_id", "pad_token_id"), config.start_id
        )


def _weights(config: T5Config) -> list[Weight]:
    """Returns the mapping of a complete config."""
    found = [Weight("token_embedding/embeddings", ("shared.weight",))]
    if not config.tied:
        found.append(Weight("head/kernel", ("lm_head.weight",), transposed=True))
    for ours, theirs, layers in (
        ("encoder_", "encoder", config.num_layers),
        ("", "decoder", config.decoder_layers),
    ):
        bias = "block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        norm = f"{theirs}.final_layer_norm.weight"
        found.append(Weight(f"{ours}final_norm/scale", (norm,)))
        found.append(Weight(f"{ours}relative_bias/embeddings", (f"{theirs}.{bias}",)))
        for i in range(layers):
            found += _block(config, f"{ours}block_{i}", f"{theirs}.block.{i}.layer")
    return found


def _block(config: T5Config, ours: str, theirs: str) -> list[Weight]:
    """Returns the mapping of one block: two branches, or three in the decoder."""
    is_decoder = theirs.startswith("decoder")
    last = 2 if is_decoder else 1
    gates = ("wi_0", "wi_1") if config.activation.startswith("geglu") else ("wi",)
    own, cross = "0.SelfAttention", "1.EncDecAttention"
    dense = f"{last}.DenseReluDense"
    norms = {"attention_norm": 0, "feed_forward_norm": last}
    kernels = {
        "attention/query_key_value": [f"{own}.{part}" for part in "qkv"],
        "attention/output": [f"{own}.o"],
        "feed_forward/inner": [f"{dense}.{gate}" for gate in gates],
        "feed_forward/output": [f"{dense}.wo"],
    }
    if is_decoder:
        norms["cross_attention_norm"] = 1
        kernels |= {
            "cross_attention/query": [f"{cross}.q"],
            "cross_attention/key_value": [f"{cross}.k", f"{cross}.v"],
            "cross_attention/output": [f"{cross}.o"],
        }
    return [
        *(
            Weight(f"{ours}/{name}/scale", (f"{theirs}.{branch}.layer_norm.weight",))
            for name, branch in norms.items()
        ),
        *(
            Weight(
                f"{ours}/{name}/kernel",
                tuple(f"{theirs}.{part}.weight" for part in parts),
                transposed=True,
            )
            for name, parts in kernels.items()
        ),
    ]


def _copies(config: T5Config) -> dict[str, str]:
    names = ["encoder.embed_tokens.weight", "decoder.embed_tokens.weight"]
    if config.tied:
        names.append("lm_head.weight")
    return dict.fromkeys(names, "shared.weight")


FAMILY = Family(
    model_type="t5",
    model_class="T5ForConditionalGeneration",
    trunk_class=None,
    prefix="",
    config=T5Config,
    fields=(
        Field("vocab_size", "vocab_size"),
        Field("d_model", "width"),
        Field("d_kv", "head_size"),
        Field("d_ff", "feed_forward_width"),
        Field("num_layers", "num_layers"),
        Field("num_decoder_layers", "num_decoder_layers", default=None),
        Field("num_heads", "num_heads"),
        Field("relative_attention_num_buckets", "relative_buckets"),
        Field("relative_attention_max_distance", "relative_max_distance", 128),
        Field("layer_norm_epsilon", "epsilon", default=1e-6),
        Field("dropout_rate", "dropout", default=0.1),
        _Activation(),
        _Tied(),
        _StartId(),
        Own("max_positions", 1_024),
    ),
    always={},
    fixed={"is_decoder": False, "is_encoder_decoder": True},
    # A head for classes that is not in use, and how weights once began.
    silent={"classifier_dropout": 0.0, "initializer_factor": 1.0},
    obsolete={"n_positions": ANY, "output_past": ANY},
    complete=lambda config: config.replace(
        feed_forward_width=config.inner_dim,
        head_size=config.head_size or config.width // config.num_heads,
        num_decoder_layers=config.decoder_layers,
    ),
    weights=_weights,
    copies=_copies,
    not_weights=(
        r"decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight"
    ),
)
