"""GPT-2's checkpoints: `GPT2LMHeadModel` there, `gpt2` here."""

from keras_llm.convert.family import ANY, Family, Field, Own, UnsupportedModelError
from keras_llm.convert.weights import Weight
from keras_llm.models import GPT2Config

_DROPOUTS = ("attn_pdrop", "embd_pdrop", "resid_pdrop")


class _Dropout:
    """Three rates there, which must agree: one here."""

    def read(self, values):
        rates = {name: values.pop(name, 0.1) for name in _DROPOUTS}
        if len(set(rates.values())) > 1:
            raise UnsupportedModelError(
                f"{', '.join(_DROPOUTS)} must be equal: our `gpt2` has one rate for "
                f"all three. Received: {rates}."
            )
        return {"dropout": rates["embd_pdrop"]}

    def write(self, config):
        return dict.fromkeys(_DROPOUTS, config.dropout)


def _weights(config: GPT2Config) -> list[Weight]:
    """Names alone differ: their projections are stored as ours are, q, k, v fused."""
    names = {
        "token_embedding/embeddings": "transformer.wte.weight",
        "position_embedding/embeddings": "transformer.wpe.weight",
        "final_norm/scale": "transformer.ln_f.weight",
        "final_norm/bias": "transformer.ln_f.bias",
    }
    for i in range(config.num_layers):
        for ours, theirs in (
            ("attention_norm", "ln_1"),
            ("feed_forward_norm", "ln_2"),
        ):
            names[f"block_{i}/{ours}/scale"] = f"transformer.h.{i}.{theirs}.weight"
            names[f"block_{i}/{ours}/bias"] = f"transformer.h.{i}.{theirs}.bias"
        for ours, theirs in (
            ("attention/query_key_value", "attn.c_attn"),
            ("attention/output", "attn.c_proj"),
            ("feed_forward/inner", "mlp.c_fc"),
            ("feed_forward/output", "mlp.c_proj"),
        ):
            names[f"block_{i}/{ours}/kernel"] = f"transformer.h.{i}.{theirs}.weight"
            names[f"block_{i}/{ours}/bias"] = f"transformer.h.{i}.{theirs}.bias"
    return [Weight(ours, (theirs,)) for ours, theirs in names.items()]


FAMILY = Family(
    model_type="gpt2",
    model_class="GPT2LMHeadModel",
    trunk_class="GPT2Model",
    prefix="transformer.",
    config=GPT2Config,
    fields=(
        Field("vocab_size", "vocab_size"),
        Field("n_positions", "max_positions"),
        Field("n_embd", "width"),
        Field("n_layer", "num_layers"),
        Field("n_head", "num_heads"),
        Field("n_inner", "feed_forward_width", default=None),
        Field("layer_norm_epsilon", "epsilon", default=1e-5),
        _Dropout(),
        Own("separator_id", None),
    ),
    always={"use_bias": True},
    fixed={
        "activation_function": "gelu_new",
        "add_cross_attention": False,
        "scale_attn_by_inverse_layer_idx": False,
        "scale_attn_weights": True,
        "tie_word_embeddings": True,
    },
    silent={
        # Precision while training, and a head for classes that is not in use.
        "reorder_and_upcast_attn": False,
        "summary_activation": None,
        "summary_first_dropout": 0.1,
        "summary_proj_to_labels": True,
        "summary_type": "cls_index",
        "summary_use_proj": True,
    },
    obsolete={"n_ctx": ANY},  # It repeats `n_positions`.
    complete=lambda config: config,
    weights=_weights,
    copies=lambda config: {"lm_head.weight": "transformer.wte.weight"},
    # The causal mask, and the number that it puts in.
    not_weights=r"(transformer\.)?h\.\d+\.attn\.(masked_)?bias",
)
