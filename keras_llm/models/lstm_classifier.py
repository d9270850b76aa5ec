"""LSTM classifier: recurrent layers over a text, one vector of it, a label."""

import dataclasses

import keras
from keras import ops

from keras_llm.core import Config, checks
from keras_llm.layers import (
    BidirectionalLSTM,
    Dropout,
    Linear,
    Pooling,
    RecurrentBlock,
    RowLayout,
    TokenEmbedding,
)
from keras_llm.layers.pooling import POOLINGS as TOKEN_POOLINGS
from keras_llm.models.fitted import Model
from keras_llm.models.transformer import check_buildable

POOLINGS = ("last", *TOKEN_POOLINGS)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LSTMClassifierConfig(Config):
    """Sizes of an LSTM that tells which label a text has.

    Source: Graves and Schmidhuber 2005, https://doi.org/10.1016/j.neunet.2005.06.042
    (both directions); Conneau et al. 2017, section 3.2,
    https://arxiv.org/abs/1705.02364 (last state, mean and max of the states).

    >>> LSTMClassifierConfig(pooling="median")
    Traceback (most recent call last):
    ...
    ValueError: `pooling` must be one of 'last', 'first', 'mean', 'max', 'attention'. \
Received: pooling='median'.
    """

    architecture = "lstm_classifier"
    max_positions = None  # A recurrent state has no end.

    vocab_size: int = 0  # 0: the tokenizer's, filled in when training starts.
    embedding_width: int = 256
    units: int = 256  # Width of a state, in each direction.
    num_layers: int = 1
    bidirectional: bool = True
    # What of the last layer is looked at: "last", the state that each direction ends
    # in; else its outputs at real tokens, as in `layers.Pooling`.
    pooling: str = "last"
    dropout: float = 0.0  # Of embeddings, of each layer's outputs and before the head.
    labels: tuple[str, ...] = ()  # (): filled in from the training data.

    def __post_init__(self):
        checks.check_not_negative("vocab_size", self.vocab_size)
        for name in ("embedding_width", "units", "num_layers"):
            checks.check_positive(name, getattr(self, name))
        checks.check_choice("pooling", self.pooling, POOLINGS)
        if not 0 <= self.dropout < 1:
            raise ValueError(
                "`dropout` must be at least 0 and below 1. "
                f"Received: dropout={self.dropout}."
            )
        if len(set(self.labels)) < len(self.labels):
            raise ValueError(
                f"`labels` must differ from each other. Received: labels={self.labels}."
            )

    @property
    def width(self) -> int:
        """Width of the vector that the head reads."""
        return self.units * (2 if self.bidirectional else 1)


def build_lstm_classifier(config: LSTMClassifierConfig, dtype=None) -> keras.Model:
    """Returns a functional model from texts to logits, float32 [B, L].

    It takes a dict: `token_ids` int32 [B, T], right-padded, and `lengths` int32 [B],
    the real tokens of each row. L is the number of labels, in the config's order.
    With one direction its layers have the names that `lstm_lm` gives them, so that
    a language model's weights go into it by `transfer_weights`.

    Args:
        config: Its `vocab_size` and `labels` must be filled in.
        dtype: A dtype or a policy such as "mixed_bfloat16" for every layer; None
            for Keras' global policy.

    Raises:
        ValueError: `vocab_size` is 0, or there are fewer than two labels.

    >>> config = LSTMClassifierConfig(vocab_size=11, units=5, labels=("ham", "spam"))
    >>> model = build_lstm_classifier(config)
    >>> model({"token_ids": np.array([[1, 2, 0]]), "lengths": np.array([2])}).shape
    TensorShape([1, 2])
    """
    check_buildable(config)
    if len(config.labels) < 2:
        raise ValueError(
            "A classifier chooses between two labels or more. Received: "
            f"labels={config.labels}. Fill them in with config.replace(labels=...)."
        )
    # Layers.
    layout = RowLayout(name="layout", dtype=dtype)
    token_embedding = TokenEmbedding(
        config.vocab_size,
        config.embedding_width,
        keras.initializers.RandomNormal(stddev=0.05),
        name="token_embedding",
        dtype=dtype,
    )
    dropout = Dropout(config.dropout, name="embedding_dropout", dtype=dtype)
    final_norm = keras.layers.Identity(name="final_norm", dtype=dtype)
    head_dropout = Dropout(config.dropout, name="head_dropout", dtype=dtype)
    head = Linear(len(config.labels), name="head", dtype=dtype)
    # Graph.
    inputs = {
        "token_ids": keras.Input((None,), dtype="int32", name="token_ids"),
        "lengths": keras.Input((), dtype="int32", name="lengths"),
    }
    _, real = layout(inputs["token_ids"], inputs["lengths"])
    x = dropout(token_embedding(inputs["token_ids"]))
    last = None
    for i in range(config.num_layers):
        x, last = _read(config, i, x, real, dtype)
    if config.pooling == "last":
        x = final_norm(last)
    else:
        x = Pooling(config.pooling, name="pooling", dtype=dtype)(
            final_norm(x), mask=real
        )
    logits = ops.cast(head(head_dropout(x)), "float32")
    model = Model(inputs, logits, name="lstm_classifier")
    model.config = config
    return model


def _read(config, i, x, real, dtype):
    """Returns layer i's outputs [B, T, D] and the state [B, D] that it ends in."""
    name = f"block_{i}"
    if not config.bidirectional:
        block = RecurrentBlock(
            config.units, dropout=config.dropout, name=name, dtype=dtype
        )
        x, (h, _) = block(x, mask=real, return_state=True)
        return x, h
    block = BidirectionalLSTM(
        config.units,
        return_sequences=True,
        return_state=True,
        dropout=config.dropout,
        name=name,
        dtype=dtype,
    )
    x, h, _ = block(x, mask=real)
    return x, h


def forward_flops(config: LSTMClassifierConfig, context: int) -> int:
    """Returns the multiply-adds of one token's forward pass, times two.

    The head, which runs once a row, is left out. `context` does not matter.
    """
    del context
    total, width = 0, config.embedding_width
    for _ in range(config.num_layers):
        total += (width + config.units) * 4 * config.width
        width = config.width
    return 2 * total
