"""BERT's checkpoints, one class for each head: `bert` here."""

from typing import Any

from keras_llm.convert.family import ANY, Family, Field, Own, UnsupportedModelError
from keras_llm.convert.weights import Weight
from keras_llm.models import BertConfig

_TABLES = {
    "token_embedding": "word_embeddings",
    "position_embedding": "position_embeddings",
    "segment_embedding": "token_type_embeddings",
}
_BLOCK = {
    "attention/output": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "feed_forward/inner": "intermediate.dense",
    "feed_forward/output": "output.dense",
    "feed_forward_norm": "output.LayerNorm",
}
_HEADS = {
    "masked_lm": {
        "head_transform": "cls.predictions.transform.dense",
        "head_norm": "cls.predictions.transform.LayerNorm",
    },
    "classify": {"pooler": "bert.pooler.dense", "head": "classifier"},
    "tag": {"head": "classifier"},
    "answer": {"head": "qa_outputs"},
    "embed": {},
}


class Dropout:
    """Two rates there, which must agree: one here."""

    def read(self, values: dict[str, Any]) -> dict[str, Any]:
        """Returns `dropout`."""
        rates = [
            values.pop(f"{name}_dropout_prob", 0.1)
            for name in ("hidden", "attention_probs")
        ]
        if rates[0] != rates[1]:
            raise UnsupportedModelError(
                "`hidden_dropout_prob` must equal `attention_probs_dropout_prob`: our "
                f"models have one rate. Received: {rates}."
            )
        return {"dropout": rates[0]}

    def write(self, config: BertConfig) -> dict[str, Any]:
        """Returns both rates."""
        return dict.fromkeys(
            ("hidden_dropout_prob", "attention_probs_dropout_prob"), config.dropout
        )


class Activation:
    """The feed-forward's function, which is the masked-LM head's too."""

    _NAMES = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh"}

    def read(self, values: dict[str, Any]) -> dict[str, Any]:
        """Returns `activation`."""
        name = values.pop("hidden_act", "gelu")
        if name not in self._NAMES:
            raise UnsupportedModelError(
                f"`hidden_act` must be one of {', '.join(map(repr, self._NAMES))}. "
                f"Received: hidden_act={name!r}."
            )
        return {"activation": self._NAMES[name]}

    def write(self, config: BertConfig) -> dict[str, Any]:
        """Returns the function's first name."""
        names = {ours: name for name, ours in reversed(self._NAMES.items())}
        return {"hidden_act": names[config.activation]}


class Labels:
    """The classes' names by number, and numbers by name."""

    def read(self, values: dict[str, Any]) -> dict[str, Any]:
        """Returns `labels`, of which Transformers leaves two unnamed ones out."""
        names = values.pop("id2label", None) or {"0": "LABEL_0", "1": "LABEL_1"}
        labels = tuple(names[str(number)] for number in range(len(names)))
        return {"labels": labels}

    def write(self, config: BertConfig) -> dict[str, Any]:
        """Returns both tables."""
        return {
            "id2label": {str(n): label for n, label in enumerate(config.labels)},
            "label2id": {label: n for n, label in enumerate(config.labels)},
        }


# What ELECTRA's configs share with BERT's.
FIELDS = (
    Field("vocab_size", "vocab_size"),
    Field("hidden_size", "width"),
    Field("num_hidden_layers", "num_layers"),
    Field("num_attention_heads", "num_heads"),
    Field("intermediate_size", "feed_forward_width"),
    Field("max_position_embeddings", "max_positions"),
    Field("type_vocab_size", "num_segments", default=2),
    Field("layer_norm_eps", "epsilon", default=1e-12),
    Dropout(),
)
FIXED = {
    "add_cross_attention": False,
    "classifier_dropout": None,
    "is_decoder": False,
    "tie_word_embeddings": True,
}
OBSOLETE = {
    "gradient_checkpointing": ANY,  # How it was trained.
    "num_labels": ANY,  # As many as have names.
    "position_embedding_type": "absolute",
    "problem_type": ANY,  # The loss, not the logits.
}
# The first files were renamed from TensorFlow's words.
OLD_ENDINGS = {"LayerNorm.weight": "gamma", "LayerNorm.bias": "beta"}
PLAIN = {"pooling": "first", "normalize": False}


def pair(ours: str, theirs: str) -> list[Weight]:
    """Returns the two weights of a norm, or of a projection stored [out, in]."""
    is_norm = theirs.endswith("LayerNorm")
    kernel = "scale" if is_norm else "kernel"
    return [
        Weight(f"{ours}/{kernel}", (f"{theirs}.weight",), transposed=not is_norm),
        Weight(f"{ours}/bias", (f"{theirs}.bias",)),
    ]


def trunk_weights(config: BertConfig, theirs: str, prefix: str = "") -> list[Weight]:
    """Returns the mapping of the tables and the blocks.

    Args:
        config: A complete one.
        theirs: What their names of the trunk's tensors begin with.
        prefix: Before our names of the blocks.
    """
    found = [
        Weight(f"{ours}/embeddings", (f"{theirs}embeddings.{name}.weight",))
        for ours, name in _TABLES.items()
    ]
    found += pair("embedding_norm", f"{theirs}embeddings.LayerNorm")
    for i in range(config.num_layers):
        layer, block = f"{theirs}encoder.layer.{i}", f"{prefix}block_{i}"
        parts = [f"{layer}.attention.self.{x}" for x in ("query", "key", "value")]
        fused = f"{block}/attention/query_key_value"
        kernels = tuple(f"{part}.weight" for part in parts)
        found.append(Weight(f"{fused}/kernel", kernels, transposed=True))
        found.append(Weight(f"{fused}/bias", tuple(f"{part}.bias" for part in parts)))
        for ours, name in _BLOCK.items():
            found += pair(f"{block}/{ours}", f"{layer}.{name}")
    return found


def _weights(config: BertConfig) -> list[Weight]:
    """Returns the mapping of a complete config."""
    # Their class without a head names the trunk's tensors without its prefix.
    found = trunk_weights(config, "" if config.head == "embed" else "bert.")
    for ours, theirs in _HEADS[config.head].items():
        found += pair(ours, theirs)
    if config.head == "masked_lm":
        bias = "cls.predictions.bias"
        found.append(Weight("token_embedding/output_bias", (bias,)))
    return found


def _family(head: str, model_class: str, *more: Any, **always: Any) -> Family:
    copies = {
        "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
        "cls.predictions.decoder.bias": "cls.predictions.bias",
    }
    # Position numbers; and, where ours has none, the pooler and the head that told
    # whether two sentences follow each other.
    not_weights = r"(bert\.)?embeddings\.position_ids"
    if head != "classify":
        not_weights += r"|(bert\.)?pooler\.dense\.\w+|cls\.seq_relationship\.\w+"
    return Family(
        model_type="bert",
        model_class=model_class,
        trunk_class=None,
        prefix="" if head == "embed" else "bert.",
        config=BertConfig,
        fields=(*FIELDS, Activation(), *more),
        always={
            "head": head,
            "embedding_width": None,
            "pooler_activation": "tanh",
            **always,
        },
        fixed=FIXED,
        silent={},
        obsolete=OBSOLETE,
        complete=lambda config: config.replace(feed_forward_width=config.inner_dim),
        weights=_weights,
        copies=lambda config: copies if head == "masked_lm" else {},
        not_weights=not_weights,
        old_endings=OLD_ENDINGS,
    )


FAMILIES = (
    _family("masked_lm", "BertForMaskedLM", labels=(), **PLAIN),
    _family("classify", "BertForSequenceClassification", Labels(), **PLAIN),
    _family("tag", "BertForTokenClassification", Labels(), **PLAIN),
    _family("answer", "BertForQuestionAnswering", labels=(), **PLAIN),
    _family(
        "embed",
        "BertModel",
        Own("pooling", "first"),
        Own("normalize", False),
        labels=(),
    ),
)
