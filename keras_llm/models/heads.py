"""What stands on an encoder: from hidden states to a task's output."""

import keras
from keras import ops

from keras_llm.core import checks
from keras_llm.layers import Dropout, LayerNorm, Linear, Pooling
from keras_llm.layers.pooling import POOLINGS
from keras_llm.models.transformer import normal
from keras_llm.ops import masks
from keras_llm.ops.activations import activate

HEADS = ("masked_lm", "classify", "tag", "answer", "embed")
POOLER_ACTIVATIONS = ("tanh", "gelu")
_LABELLED = ("classify", "tag")
_POOLED = ("classify", "embed")


def check_head(config) -> None:
    """Raises ValueError unless a config's head and its settings fit together.

    Labels may still be missing: they come from the training data.
    """
    checks.check_choice("head", config.head, HEADS)
    checks.check_choice("pooling", config.pooling, POOLINGS)
    checks.check_choice(
        "pooler_activation", config.pooler_activation, POOLER_ACTIVATIONS
    )
    for name, is_set, where in (
        ("labels", bool(config.labels), _LABELLED),
        ("pooling", config.pooling != "first", _POOLED),
        ("pooler_activation", config.pooler_activation != "tanh", ("classify",)),
        ("normalize", config.normalize, ("embed",)),
    ):
        if is_set and config.head not in where:
            listed = " and ".join(repr(head) for head in where)
            raise ValueError(
                f"`{name}` says something about heads {listed} alone. Received: "
                f"{name}={getattr(config, name)!r}, head={config.head!r}. Leave it out."
            )
    if len(set(config.labels)) < len(config.labels):
        raise ValueError(
            f"`labels` must differ from each other. Received: labels={config.labels}."
        )


def check_labels(config) -> None:
    """Raises ValueError where a head has fewer than two labels to choose from."""
    if config.head in _LABELLED and len(config.labels) < 2:
        raise ValueError(
            f"A head {config.head!r} chooses between two labels or more. Received: "
            f"labels={config.labels}. Fill them in with config.replace(labels=...)."
        )


def attach_head(config, hidden, real, token_embedding, dtype):
    """Returns the symbolic float32 output of `config.head` over hidden states.

    Args:
        config: A config that `check_head` and `check_labels` have passed.
        hidden: Symbolic float tensor [B, T, D].
        real: Symbolic bool tensor [B, T].
        token_embedding: The table that a masked-LM head is tied to.
        dtype: A dtype or policy for the head's layers.

    """
    if config.head == "masked_lm":
        return masked_lm_head(config, token_embedding, dtype)(hidden)
    if config.head == "embed":
        return _embed(config, hidden, real, dtype)
    dropout = Dropout(config.dropout, name="head_dropout", dtype=dtype)
    head = Linear(
        len(config.labels) or 2, kernel_initializer=normal(), name="head", dtype=dtype
    )
    if config.head == "classify":
        pooled = Pooling(config.pooling, name="pooling", dtype=dtype)(hidden, mask=real)
        pooler = Linear(
            config.width, kernel_initializer=normal(), name="pooler", dtype=dtype
        )
        is_tanh = config.pooler_activation == "tanh"
        hidden = pooler(pooled)
        hidden = ops.tanh(hidden) if is_tanh else activate(hidden, "gelu")
    logits = ops.cast(head(dropout(hidden)), "float32")
    if config.head == "answer":
        return ops.where(real[..., None], logits, masks.MASKED)
    return logits


def _embed(config, hidden, real, dtype):
    """Returns one vector a row, [B, D]."""
    pooling = Pooling(config.pooling, name="pooling", dtype=dtype)
    vector = ops.cast(pooling(hidden, mask=real), "float32")
    if not config.normalize:
        return vector
    square = ops.sum(ops.square(vector), axis=-1, keepdims=True)
    return vector * ops.rsqrt(ops.maximum(square, 1e-24))


def masked_lm_head(config, token_embedding, dtype=None, prefix=""):
    """Returns the function from hidden states [..., D] to logits [..., V].

    logits = norm(gelu(x @ transform)) @ transpose(table) + output bias, with layers
    named `head_transform` and `head_norm` after `prefix`.

    Args:
        config: Has `table_width`, `epsilon` and `activation`.
        token_embedding: The tied `TokenEmbedding`.
        dtype: A dtype or policy for both layers.
        prefix: Of their names.
    """
    transform = Linear(
        config.table_width,
        kernel_initializer=normal(),
        name=f"{prefix}head_transform",
        dtype=dtype,
    )
    norm = LayerNorm(config.epsilon, name=f"{prefix}head_norm", dtype=dtype)
    return _tied(transform, norm, token_embedding, config.activation)


def built_masked_lm_head(model: keras.Model):
    """Returns the same function over the layers of a built model.

    Raises:
        ValueError: The model has no such head.
    """
    if "head_transform" not in {layer.name for layer in model.layers}:
        raise ValueError(
            "Only a masked-LM head can be split off. Received: "
            f"architecture={model.config.architecture!r}, "
            f"head={getattr(model.config, 'head', None)!r}."
        )
    transform, norm, token_embedding = map(
        model.get_layer, ("head_transform", "head_norm", "token_embedding")
    )
    return _tied(transform, norm, token_embedding, model.config.activation)


def _tied(transform, norm, token_embedding, activation):
    def project(hidden):
        x = norm(activate(transform(hidden), activation))
        return token_embedding(x, reverse=True)

    return project
