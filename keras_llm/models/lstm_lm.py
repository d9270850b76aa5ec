"""LSTM language model: stacked recurrent blocks between embedding and head."""

import dataclasses

import keras
from keras import ops

from keras_llm.core import Config, checks
from keras_llm.layers import Dropout, LayerNorm, Linear, RecurrentBlock, TokenEmbedding
from keras_llm.models.fitted import Model
from keras_llm.models.transformer import check_buildable, output_head


@dataclasses.dataclass(frozen=True, kw_only=True)
class LSTMLMConfig(Config):
    """Sizes of an LSTM language model.

    Source: Zaremba et al. 2014, https://arxiv.org/abs/1409.2329; tied embeddings
    after Press and Wolf 2017, https://arxiv.org/abs/1608.05859.

    >>> LSTMLMConfig(dropout=1.0)
    Traceback (most recent call last):
    ...
    ValueError: `dropout` must be at least 0 and below 1. Received: dropout=1.0.
    """

    architecture = "lstm_lm"
    max_positions = None  # A recurrent state has no end.

    vocab_size: int = 0  # 0: the tokenizer's, filled in when training starts.
    embedding_width: int = 512
    units: int = 1_024  # Width of every layer's state.
    num_layers: int = 2
    tied: bool = False  # The head is the embedding, after a projection to its width.
    pre_norm: bool = False  # LayerNorm before each layer, and at the end.
    residual: bool = False  # Each layer adds to what it reads.
    layer_norm: bool = False  # Inside the recurrence, on gates and cell.
    dropout: float = 0.0  # Of the embeddings and of each layer's outputs.
    recurrent_dropout: float = 0.0  # Of h on its way to the next step.
    epsilon: float = 1e-5  # Of the norms.
    # The state starts anew before this id is read; None: it runs on.
    separator_id: int | None = None

    def __post_init__(self):
        checks.check_not_negative("vocab_size", self.vocab_size)
        for name in ("embedding_width", "units", "num_layers", "epsilon"):
            checks.check_positive(name, getattr(self, name))
        for name in ("dropout", "recurrent_dropout"):
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise ValueError(
                    f"`{name}` must be at least 0 and below 1. "
                    f"Received: {name}={value}."
                )
        if self.separator_id is not None:
            checks.check_not_negative("separator_id", self.separator_id)
            if self.vocab_size and not self.separator_id < self.vocab_size:
                raise ValueError(
                    "`separator_id` must be an id of the vocabulary. Received: "
                    f"separator_id={self.separator_id}, vocab_size={self.vocab_size}."
                )

    @property
    def head_width(self) -> int:
        """Width of the last hidden states."""
        return self.embedding_width if self.tied else self.units


def build_lstm_lm(config: LSTMLMConfig, dtype=None) -> keras.Model:
    """Returns a functional model from token ids [B, T] to logits [B, T, V].

    Every row starts from a state of zeros. To carry state from one piece of a text
    to the next, run the same layers through `LSTMLMDecoder.sequence`.

    Args:
        config: Its `vocab_size` must be filled in.
        dtype: A dtype or a policy such as "mixed_bfloat16" for every layer; None
            for Keras' global policy. Logits are float32 in any case.

    Raises:
        ValueError: `vocab_size` is 0.

    >>> config = LSTMLMConfig(vocab_size=11, embedding_width=3, units=5)
    >>> build_lstm_lm(config)(np.array([[1, 2, 3]])).shape
    TensorShape([1, 3, 11])
    """
    check_buildable(config)
    # Layers.
    token_embedding = TokenEmbedding(
        config.vocab_size,
        config.embedding_width,
        # Tied rows score hidden states of size 1: more would saturate the softmax.
        keras.initializers.RandomNormal(stddev=0.05),
        name="token_embedding",
        dtype=dtype,
    )
    dropout = Dropout(config.dropout, name="embedding_dropout", dtype=dtype)
    blocks = [
        RecurrentBlock(
            config.units,
            config.pre_norm,
            config.residual,
            config.dropout,
            config.recurrent_dropout,
            config.layer_norm,
            config.epsilon,
            name=f"block_{i}",
            dtype=dtype,
        )
        for i in range(config.num_layers)
    ]
    # Graph.
    token_ids = keras.Input((None,), dtype="int32", name="token_ids")
    resets = None
    if config.separator_id is not None:
        resets = ops.equal(token_ids, config.separator_id)
    x = dropout(token_embedding(token_ids))
    for block in blocks:
        x = block(x, reset_mask=resets)
    if config.tied and config.embedding_width != config.units:
        x = Linear(
            config.embedding_width, False, name="output_projection", dtype=dtype
        )(x)
    x = _final_norm(config, dtype)(x)
    if config.tied:
        logits = token_embedding(x, reverse=True)
    else:
        head = Linear(config.vocab_size, False, name="head", dtype=dtype)
        logits = ops.cast(head(x), "float32")
    model = Model(token_ids, logits, name="lstm_lm")
    model.config = config
    return model


def _final_norm(config, dtype):
    """Returns the layer that gives the last hidden states, whatever the config.

    The classic network has no norm there: then it passes them through, so that
    every architecture is cut from its head at the same name.
    """
    if config.pre_norm:
        return LayerNorm(config.epsilon, name="final_norm", dtype=dtype)
    return keras.layers.Identity(name="final_norm", dtype=dtype)


def forward_flops(config: LSTMLMConfig, context: int) -> int:
    """Returns the multiply-adds of one token's forward pass, times two.

    Each layer multiplies its input and its state by a matrix of 4 U columns; the
    embedding is a look-up. `context` does not matter.
    """
    del context
    total, width = 0, config.embedding_width
    for _ in range(config.num_layers):
        total += (width + config.units) * 4 * config.units
        if config.residual and width != config.units:
            total += width * config.units
        width = config.units
    if config.tied and config.embedding_width != config.units:
        total += config.units * config.embedding_width
    return 2 * (total + config.head_width * config.vocab_size)


class LSTMLMDecoder:
    """Decoding, and training piece by piece, over a built model's layers.

    The state is a dict of tensors with leading dimension B: `h_0` and `c_0` [B, U]
    of the first layer, and so on. It does not grow with the text.

    Args:
        model: From `build_lstm_lm`.
        jit: Whether XLA will compile `step`.
    """

    prompt_in_cache = True  # The text goes on where the prompt ends.

    def __init__(self, model: keras.Model, jit: bool = False):
        self.model = model
        self.config = model.config
        names = {layer.name for layer in model.layers}
        self.blocks = [
            model.get_layer(f"block_{i}") for i in range(self.config.num_layers)
        ]
        self.token_embedding = model.get_layer("token_embedding")
        self.embedding_dropout = model.get_layer("embedding_dropout")
        self.output_projection = None
        if "output_projection" in names:
            self.output_projection = model.get_layer("output_projection")
        self.final_norm = model.get_layer("final_norm")
        self.project = output_head(model, jit)

    def initial_state(self, batch):
        """Returns the state of `batch` rows before any token: zeros."""
        state = {}
        for i, block in enumerate(self.blocks):
            state[f"h_{i}"], state[f"c_{i}"] = block.lstm.initial_state(batch)
        return state

    def sequence(self, token_ids, state, mask=None, training=False):
        """Runs a piece of text from a given state: truncated back-propagation.

        Feeding the pieces of a text one after the other, each with the state that
        the one before returned, computes what the whole text would. Gradients go
        back to the start of the piece, and into `state` where the caller
        differentiates with respect to it.

        Args:
            token_ids: Int32 [B, T].
            state: From `initial_state`, `sequence`, `prefill` or `step`.
            mask: Bool [B, T] or None: False leaves a row's state as it was.
            training: Whether dropout is on and gradients will be taken.

        Returns:
            Hidden states [B, T, D] before the head, for `project` or a loss that
            projects piece by piece, and the new state.
        """
        resets = self._resets(token_ids)
        x = self.token_embedding(token_ids)
        x = self.embedding_dropout(x, training=training)
        new_state = {}
        for i, block in enumerate(self.blocks):
            x, (h, c) = block(
                x,
                mask=mask,
                initial_state=(state[f"h_{i}"], state[f"c_{i}"]),
                reset_mask=resets,
                return_state=True,
                training=training,
            )
            new_state[f"h_{i}"], new_state[f"c_{i}"] = h, c
        return self._finish(x), new_state

    def prefill(self, token_ids, lengths, capacity=None):
        """Runs right-padded prompts.

        Args:
            token_ids: Int32 [B, T].
            lengths: Int32 [B], each from 1 to T: the real tokens of each row.
            capacity: Ignored: the state has one size.

        Returns:
            Logits float32 [B, V] after each row's last real token, and the state
            at that token.
        """
        del capacity
        lengths = ops.cast(lengths, "int32")
        batch, length = ops.shape(token_ids)
        mask = ops.arange(length, dtype="int32")[None] < lengths[:, None]
        hidden, state = self.sequence(token_ids, self.initial_state(batch), mask)
        last = ops.maximum(lengths - 1, 0)[:, None, None]
        hidden_BD = ops.take_along_axis(hidden, last, axis=1)[:, 0]
        return self.project(hidden_BD), state

    def step(self, token_ids, state):
        """Runs one token per row.

        Args:
            token_ids: Int32 [B].
            state: From `prefill`, `sequence` or `step`.

        Returns:
            Logits float32 [B, V] for the token after it, and the new state.
        """
        resets = self._resets(token_ids)
        x = self.token_embedding(token_ids)
        new_state = {}
        for i, block in enumerate(self.blocks):
            x, (h, c) = block.step(x, (state[f"h_{i}"], state[f"c_{i}"]), resets)
            new_state[f"h_{i}"], new_state[f"c_{i}"] = h, c
        return self.project(self._finish(x)), new_state

    def _resets(self, token_ids):
        """Returns where the state starts anew, or None."""
        if self.config.separator_id is None:
            return None
        return ops.equal(token_ids, self.config.separator_id)

    def _finish(self, x):
        if self.output_projection is not None:
            x = self.output_projection(x)
        return self.final_norm(x)
