"""Sequence to sequence by LSTMs: an encoder, and a decoder that attends to it."""

import dataclasses

import keras
from keras import ops

from keras_llm.core import Config, checks
from keras_llm.layers import (
    AdditiveAttention,
    BidirectionalLSTM,
    Dropout,
    Linear,
    MultiplicativeAttention,
    RecurrentBlock,
    TokenEmbedding,
)
from keras_llm.models.encoder_decoder import (
    check_start_id,
    memory_mask,
    source_inputs,
    source_layout,
)
from keras_llm.models.fitted import Model
from keras_llm.models.transformer import check_buildable, output_head

ATTENTIONS = ("multiplicative", "additive")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LSTMSeq2SeqConfig(Config):
    """Sizes of an LSTM encoder-decoder with attention.

    Source: Luong et al. 2015, section 3, https://arxiv.org/abs/1508.04025, without
    input feeding: attention comes after the decoder's LSTMs, which so run over a
    whole target at once. Bahdanau et al. 2015, https://arxiv.org/abs/1409.0473, for
    the additive score and the bidirectional encoder.

    >>> LSTMSeq2SeqConfig(units=7)
    Traceback (most recent call last):
    ...
    ValueError: `units` must be a multiple of `directions`. Received: units=7, \
directions=2. Change `units` to 6 or 8, or change `directions`.
    """

    architecture = "lstm_seq2seq"
    max_positions = None  # A recurrent state has no end.

    vocab_size: int = 0  # 0: the tokenizer's, filled in when training starts.
    embedding_width: int = 256  # Source and target share one table.
    # Width of every layer's state. Each direction of the encoder has half of it, so
    # that its last states are what the decoder starts from.
    units: int = 512
    num_layers: int = 2  # Of the encoder, and of the decoder.
    bidirectional: bool = True  # Whether the encoder reads from both ends.
    attention: str = "multiplicative"  # Or "additive".
    attention_units: int | None = None  # Width of the additive score; None: units.
    tied: bool = False  # Whether the output shares the embedding's table.
    dropout: float = 0.0  # Of embeddings, of layers' outputs, and before the head.
    recurrent_dropout: float = 0.0  # Of h on its way to the next step.
    start_id: int = 0  # What the decoder reads before the first target token.

    def __post_init__(self):
        checks.check_not_negative("vocab_size", self.vocab_size)
        for name in ("embedding_width", "units", "num_layers"):
            checks.check_positive(name, getattr(self, name))
        if self.bidirectional:
            checks.check_divides("directions", 2, "units", self.units)
        checks.check_choice("attention", self.attention, ATTENTIONS)
        if self.attention_units is not None:
            checks.check_positive("attention_units", self.attention_units)
        for name in ("dropout", "recurrent_dropout"):
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise ValueError(
                    f"`{name}` must be at least 0 and below 1. "
                    f"Received: {name}={value}."
                )
        check_start_id(self)

    @property
    def head_width(self) -> int:
        """Width of the last hidden states."""
        return self.embedding_width if self.tied else self.units


def build_lstm_seq2seq(config: LSTMSeq2SeqConfig, dtype=None) -> keras.Model:
    """Returns a functional model from source and target ids to logits [B, T, V].

    Its inputs are a dict: `source_ids` int32 [B, S], right-padded; `source_lengths`
    int32 [B], each from 1 to S; `token_ids` int32 [B, T], what the decoder reads:
    `start_id`, then the target without its last token.

    Args:
        config: Its `vocab_size` must be filled in.
        dtype: A dtype or a policy such as "mixed_bfloat16" for every layer; None
            for Keras' global policy. Logits are float32 in any case.

    Raises:
        ValueError: `vocab_size` is 0.

    >>> config = LSTMSeq2SeqConfig(vocab_size=11, embedding_width=3, units=4)
    >>> model = build_lstm_seq2seq(config)
    >>> source, target = np.array([[1, 2, 3]]), np.array([[0, 4]])
    >>> model({"source_ids": source, "source_lengths": np.array([3]),
    ...        "token_ids": target}).shape
    TensorShape([1, 2, 11])
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
    blocks = [
        RecurrentBlock(
            config.units,
            dropout=config.dropout,
            recurrent_dropout=config.recurrent_dropout,
            name=f"block_{i}",
            dtype=dtype,
        )
        for i in range(config.num_layers)
    ]
    attention = _attention(config, dtype)
    combination = Linear(config.head_width, False, name="combination", dtype=dtype)
    # Graph.
    inputs = source_inputs()
    _, real = source_layout(inputs, dtype)
    memory, states = _encode(config, token_embedding, inputs, real, dtype)
    x = token_embedding(inputs["token_ids"])
    x = Dropout(config.dropout, name="embedding_dropout", dtype=dtype)(x)
    for block, state in zip(blocks, states, strict=True):
        x = block(x, initial_state=state)
    x = _combine(combination, x, attention(x, memory, memory_mask=real))
    x = Dropout(config.dropout, name="combination_dropout", dtype=dtype)(x)
    # The name at which every architecture is cut from its head.
    x = keras.layers.Identity(name="final_norm", dtype=dtype)(x)
    if config.tied:
        logits = token_embedding(x, reverse=True)
    else:
        head = Linear(config.vocab_size, False, name="head", dtype=dtype)
        logits = ops.cast(head(x), "float32")
    model = Model(inputs, logits, name="lstm_seq2seq")
    model.config = config
    return model


def _attention(config, dtype):
    if config.attention == "multiplicative":
        return MultiplicativeAttention(name="attention", dtype=dtype)
    units = config.attention_units or config.units
    return AdditiveAttention(units, name="attention", dtype=dtype)


def _encode(config, token_embedding, inputs, real, dtype):
    """Returns the memory [B, S, U] and every layer's last (h, c), each [B, U]."""
    dropout = Dropout(config.dropout, name="encoder_embedding_dropout", dtype=dtype)
    x, states = dropout(token_embedding(inputs["source_ids"])), []
    for i in range(config.num_layers):
        options = {
            "dropout": config.dropout,
            "recurrent_dropout": config.recurrent_dropout,
            "name": f"encoder_block_{i}",
            "dtype": dtype,
        }
        if config.bidirectional:
            half = config.units // 2
            block = BidirectionalLSTM(
                half, return_sequences=True, return_state=True, **options
            )
            x, h, c = block(x, mask=real)
        else:
            block = RecurrentBlock(config.units, **options)
            x, (h, c) = block(x, mask=real, return_state=True)
        states.append((h, c))
    return x, states


def _combine(combination, x, context):
    """Returns tanh([context, x] @ combination), Luong et al., eq. 5."""
    return ops.tanh(combination(ops.concatenate([context, x], axis=-1)))


def encoder(model: keras.Model) -> keras.Model:
    """Returns the encoder of a built model, sharing its weights.

    It reads `source_ids` and `source_lengths` as the whole does, and returns a dict:
    `memory` [B, S, U] and, of every layer, `h_0`, `c_0` and so on, each [B, U].
    """
    inputs = {name: model.input[name] for name in ("source_ids", "source_lengths")}
    outputs = {}
    for i in range(model.config.num_layers):
        found = model.get_layer(f"encoder_block_{i}").output
        outputs["memory"], outputs[f"h_{i}"], outputs[f"c_{i}"] = keras.tree.flatten(
            found
        )
    return keras.Model(inputs, outputs, name="encoder")


def forward_flops(
    config: LSTMSeq2SeqConfig, context: int, target_context: int | None = None
) -> float:
    """Returns the multiply-adds of one token's forward pass, times two.

    The mean over `context` tokens of a source, read, and `target_context` tokens of
    a target (None: as many), written, each of which attends to the source.
    """
    target_context = target_context or context
    units, width, read, written = config.units, config.embedding_width, 0, 0
    states = units // 2 if config.bidirectional else units
    for _ in range(config.num_layers):
        read += (width + states) * 4 * units
        written += (width + units) * 4 * units
        width = units
    inner = units
    if config.attention == "additive":
        inner = config.attention_units or units
        written += units * inner  # The queries.
    read += units * inner  # The keys.
    written += (inner + units) * context
    written += (2 * units + config.vocab_size) * config.head_width
    total = context * read + target_context * written
    return 2 * total / (context + target_context)


class LSTMSeq2SeqDecoder:
    """Decoding over a built model's layers.

    The state is a dict of tensors with leading dimension B. Of the source, never
    changed by a step: `memory` [B, S, U], `memory_keys` [B, S, A] and
    `memory_lengths` int32 [B]. Of the target: `h_0` and `c_0` [B, U] of the first
    layer, and so on.

    Args:
        model: From `build_lstm_seq2seq`.
        jit: Whether XLA will compile `step`.
    """

    prompt_in_cache = False  # The prompt is the source.

    def __init__(self, model: keras.Model, jit: bool = False):
        self.model = model
        self.config = model.config
        self.encoder = encoder(model)
        self.token_embedding = model.get_layer("token_embedding")
        self.blocks = [
            model.get_layer(f"block_{i}") for i in range(self.config.num_layers)
        ]
        self.attention = model.get_layer("attention")
        self.combination = model.get_layer("combination")
        self.project = output_head(model, jit)

    def prefill(self, token_ids, lengths, capacity=None):
        """Reads right-padded sources, then the start of every target.

        Args:
            token_ids: Int32 [B, S].
            lengths: Int32 [B], each from 1 to S: the real tokens of each row.
            capacity: Ignored: the state has one size.

        Returns:
            Logits float32 [B, V] for the first token of the target, and the state.
        """
        del capacity
        token_ids = ops.convert_to_tensor(token_ids)
        lengths = ops.cast(lengths, "int32")
        state = self.encoder({"source_ids": token_ids, "source_lengths": lengths})
        keys, values = self.attention.read(state["memory"])
        memory = {"memory": values, "memory_keys": keys, "memory_lengths": lengths}
        start = ops.full_like(lengths, self.config.start_id)
        return self.step(start, {**state, **memory})

    def step(self, token_ids, state):
        """Runs one token per row.

        Args:
            token_ids: Int32 [B].
            state: From `prefill` or `step`.

        Returns:
            Logits float32 [B, V] for the token after it, and the new state.
        """
        keys, values = state["memory_keys"], state["memory"]
        real = memory_mask(state["memory_lengths"], ops.shape(values)[1])
        x = self.token_embedding(token_ids)
        new_state = dict(state)
        for i, block in enumerate(self.blocks):
            x, (h, c) = block.step(x, (state[f"h_{i}"], state[f"c_{i}"]))
            new_state[f"h_{i}"], new_state[f"c_{i}"] = h, c
        context = self.attention.attend(x, keys, values, real)
        return self.project(_combine(self.combination, x, context)), new_state
