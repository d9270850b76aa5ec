"""ELECTRA's checkpoints, one class for each head: `bert` here.

A generator, a fine-tuned discriminator or a trunk alone is one of our BERTs with an
`embedding_width`. Generator and discriminator together are our `electra`:
`convert/electra_pair.py`.
"""

from typing import Any

from keras_llm.convert import bert
from keras_llm.convert.family import Family, Field, Own
from keras_llm.convert.weights import Weight
from keras_llm.models import BertConfig

TRUNK = "electra."
_WORDS = f"{TRUNK}embeddings.word_embeddings.weight"
# Their logits' layer is tied to the table; the bias is its own.
GENERATOR_COPIES = {"generator_lm_head.weight": _WORDS}
GENERATOR_HEAD = {
    "head_transform": "generator_predictions.dense",
    "head_norm": "generator_predictions.LayerNorm",
}
DISCRIMINATOR_HEAD = {
    "discriminator_transform": "discriminator_predictions.dense",
    "discriminator_head": "discriminator_predictions.dense_prediction",
}
# A generator's own layer has the exact GELU whatever this says.
FIXED = {**bert.FIXED, "hidden_act": "gelu"}
NOT_WEIGHTS = r"(electra\.)?embeddings\.position_ids"
# What their class of several choices reads, and no other.
SILENT = {
    "summary_activation": "gelu",
    "summary_last_dropout": 0.1,
    "summary_type": "first",
    "summary_use_proj": True,
}
FIELDS = (*bert.FIELDS, Field("embedding_size", "embedding_width", default=128))
_HEADS: dict[str, dict[str, str]] = {
    "masked_lm": GENERATOR_HEAD,
    "classify": {"pooler": "classifier.dense", "head": "classifier.out_proj"},
    "tag": {"head": "classifier"},
    "answer": {"head": "qa_outputs"},
    "embed": {},
}


def complete(config: BertConfig) -> BertConfig:
    """Returns a config with derived sizes filled in."""
    return config.replace(
        feed_forward_width=config.inner_dim, embedding_width=config.table_width
    )


def trunk_weights(config: BertConfig, theirs: str, prefix: str = "") -> list[Weight]:
    """Returns the mapping of the tables, their projection and the blocks."""
    found = bert.trunk_weights(config, theirs, prefix)
    if config.table_width != config.width:
        ours = f"{prefix}embedding_projection"
        found += bert.pair(ours, f"{theirs}embeddings_project")
    return found


def output_bias() -> Weight:
    """Returns the mapping of the bias of a generator's logits."""
    return Weight("token_embedding/output_bias", ("generator_lm_head.bias",))


def _family(head: str, model_class: str, *more: Any, **always: Any) -> Family:
    # Their class without a head names the trunk's tensors without its prefix.
    trunk = "" if model_class == "ElectraModel" else TRUNK

    def weights(config: BertConfig) -> list[Weight]:
        found = trunk_weights(config, trunk)
        for ours, theirs in _HEADS[head].items():
            found += bert.pair(ours, theirs)
        return [*found, output_bias()] if head == "masked_lm" else found

    not_weights = NOT_WEIGHTS
    if model_class == "ElectraForPreTraining":
        not_weights += r"|discriminator_predictions\.[\w.]+"
    return Family(
        model_type="electra",
        model_class=model_class,
        trunk_class=None,
        prefix=trunk,
        config=BertConfig,
        fields=(*FIELDS, *more),
        always={
            "head": head,
            "activation": "gelu",
            "pooler_activation": "tanh",
            **always,
        },
        fixed=FIXED,
        silent=SILENT,
        obsolete=bert.OBSOLETE,
        complete=complete,
        weights=weights,
        copies=lambda config: GENERATOR_COPIES if head == "masked_lm" else {},
        not_weights=not_weights,
        old_endings=bert.OLD_ENDINGS,
    )


_VECTORS = (Own("pooling", "first"), Own("normalize", False))
# Where several fit, the first is written: a trunk alone is no class's head.
FAMILIES = (
    _family("masked_lm", "ElectraForMaskedLM", labels=(), **bert.PLAIN),
    _family(
        "classify",
        "ElectraForSequenceClassification",
        bert.Labels(),
        **{**bert.PLAIN, "pooler_activation": "gelu"},
    ),
    _family("tag", "ElectraForTokenClassification", bert.Labels(), **bert.PLAIN),
    _family("answer", "ElectraForQuestionAnswering", labels=(), **bert.PLAIN),
    _family("embed", "ElectraModel", *_VECTORS, labels=()),
    # Read alone, without the head that says which tokens were replaced.
    _family("embed", "ElectraForPreTraining", *_VECTORS, labels=()),
)
