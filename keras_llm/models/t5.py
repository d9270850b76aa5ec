"""T5: an encoder and a decoder with relative position biases, text to text."""

import dataclasses

import keras
from keras import ops

from keras_llm.core import Config, checks
from keras_llm.layers import (
    DecoderBlock,
    DocumentLayout,
    Dropout,
    Linear,
    RelativePositionBias,
    RMSNorm,
    TokenEmbedding,
    check_buckets,
)
from keras_llm.models.encoder_decoder import (
    check_start_id,
    memory_mask,
    source_inputs,
    source_layout,
)
from keras_llm.models.fitted import Model
from keras_llm.models.transformer import (
    check_buildable,
    check_capacity,
    check_sizes,
    output_head,
)
from keras_llm.ops import cache as caches
from keras_llm.ops import masks

ACTIVATIONS = ("geglu_tanh", "geglu", "relu")


@dataclasses.dataclass(frozen=True, kw_only=True)
class T5Config(Config):
    """Sizes of a T5; the defaults are T5 v1.1 small's.

    Version 1.0 has `activation="relu"` and `tied=True`.

    Source: Raffel et al. 2020, sections 2.1 and 3.1,
    https://arxiv.org/abs/1910.10683; Shazeer 2020 (version 1.1's feed-forward),
    https://arxiv.org/abs/2002.05202.

    >>> T5Config(relative_buckets=5)
    Traceback (most recent call last):
    ...
    ValueError: `num_buckets` must be at least 4, and even with `bidirectional`: \
each direction has an exact distance and a range. Received: num_buckets=5, \
bidirectional=True.
    """

    architecture = "t5"

    vocab_size: int = 0  # 0: the tokenizer's, filled in when training starts.
    # Longest source and longest target, in tokens. The model has no such end; its
    # memory has: attention takes the square of it.
    max_positions: int = 1_024
    width: int = 512
    num_layers: int = 8  # Of the encoder.
    num_decoder_layers: int | None = None  # None: num_layers.
    num_heads: int = 6
    head_size: int | None = 64  # None: width / num_heads.
    feed_forward_width: int | None = 1_024  # None: 4 * width.
    activation: str = "geglu_tanh"  # Or "geglu", with the exact GELU, or "relu".
    relative_buckets: int = 32  # Ranges of distances, in the encoder half of each way.
    relative_max_distance: int = 128  # In tokens; what is farther counts as this far.
    tied: bool = False  # Whether the output shares the embedding's table.
    dropout: float = 0.0  # Share of values dropped while training.
    epsilon: float = 1e-6  # Of the norms.
    start_id: int = 0  # What the decoder reads before the first target token.

    def __post_init__(self):
        if self.head_size is not None:
            checks.check_positive("head_size", self.head_size)
        check_sizes(self)
        if self.num_decoder_layers is not None:
            checks.check_positive("num_decoder_layers", self.num_decoder_layers)
        checks.check_choice("activation", self.activation, ACTIVATIONS)
        for bidirectional in (True, False):
            check_buckets(
                self.relative_buckets, self.relative_max_distance, bidirectional
            )
        check_start_id(self)

    @property
    def inner_dim(self) -> int:
        """Width inside the feed-forward layers."""
        return self.feed_forward_width or 4 * self.width

    @property
    def decoder_layers(self) -> int:
        """Number of the decoder's blocks."""
        return self.num_decoder_layers or self.num_layers


def build_t5(config: T5Config, dtype=None) -> keras.Model:
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

    >>> config = T5Config(vocab_size=11, width=8, num_layers=2, num_heads=2)
    >>> model = build_t5(config)
    >>> source, target = np.array([[1, 2, 3]]), np.array([[0, 4]])
    >>> model({"source_ids": source, "source_lengths": np.array([3]),
    ...        "token_ids": target}).shape
    TensorShape([1, 2, 11])
    """
    check_buildable(config)
    # Layers.
    token_embedding = TokenEmbedding(
        config.vocab_size,
        config.width,
        keras.initializers.RandomNormal(stddev=1.0),
        logit_scale=config.width**-0.5 if config.tied else 1.0,
        name="token_embedding",
        dtype=dtype,
    )
    # Graph.
    inputs = source_inputs()
    memory, real = _encode(config, token_embedding, inputs, dtype)
    x = _decode(config, token_embedding, inputs["token_ids"], memory, real, dtype)
    if config.tied:
        logits = token_embedding(x, reverse=True)
    else:
        head = Linear(config.vocab_size, False, _normal(), name="head", dtype=dtype)
        logits = ops.cast(head(x), "float32")
    model = Model(inputs, logits, name="t5")
    model.config = config
    return model


def _encode(config, token_embedding, inputs, dtype):
    """Returns the encoded source [B, S, D], and which of its tokens are real."""
    relative_bias = _relative_bias(config, "encoder_", True, dtype)
    blocks = _blocks(config, config.num_layers, "encoder_", False, dtype)
    positions, real = source_layout(inputs, dtype)
    bias = relative_bias(positions) + masks.as_bias(masks.padding(real))
    x = token_embedding(inputs["source_ids"])
    x = _dropout(config, "encoder_embedding_dropout", dtype)(x)
    for block in blocks:
        x = block(x, bias=bias)
    x = RMSNorm(config.epsilon, name="encoder_final_norm", dtype=dtype)(x)
    return _dropout(config, "encoder_final_dropout", dtype)(x), real


def _decode(config, token_embedding, token_ids, memory, real, dtype):
    """Returns the hidden states [B, T, D] before the head."""
    documents = DocumentLayout(None, name="documents", dtype=dtype)
    relative_bias = _relative_bias(config, "", False, dtype)
    blocks = _blocks(config, config.decoder_layers, "", True, dtype)
    positions, bias = documents(token_ids)
    bias = bias + relative_bias(positions)
    x = _dropout(config, "embedding_dropout", dtype)(token_embedding(token_ids))
    for block in blocks:
        x = block(x, bias=bias, memory=memory, memory_mask=real)
    x = RMSNorm(config.epsilon, name="final_norm", dtype=dtype)(x)
    return _dropout(config, "final_dropout", dtype)(x)


def _normal():
    """Returns T5's initializer: products keep the variance of what they read."""
    return keras.initializers.VarianceScaling(1.0, "fan_in", "untruncated_normal")


def _dropout(config, name, dtype):
    return Dropout(config.dropout, name=name, dtype=dtype)


def _relative_bias(config, prefix, bidirectional, dtype):
    """Returns the bias that all blocks of a stack share."""
    return RelativePositionBias(
        config.num_heads,
        config.relative_buckets,
        config.relative_max_distance,
        bidirectional,
        keras.initializers.RandomNormal(stddev=config.width**-0.5),
        name=f"{prefix}relative_bias",
        dtype=dtype,
    )


def _blocks(config, count, prefix, cross_attention, dtype):
    return [
        DecoderBlock(
            config.num_heads,
            config.inner_dim,
            head_size=config.head_size,
            norm="rms_norm",
            activation=config.activation,
            use_bias=False,
            dropout=config.dropout,
            epsilon=config.epsilon,
            kernel_initializer=_normal(),
            inner_dropout=config.dropout,
            cross_attention=cross_attention,
            # T5 leaves 1 / sqrt(H) to the weights.
            attention={"scale": 1.0},
            name=f"{prefix}block_{i}",
            dtype=dtype,
        )
        for i in range(count)
    ]


def encoder(model: keras.Model) -> keras.Model:
    """Returns the encoder of a built T5, sharing its weights.

    It reads `source_ids` and `source_lengths` as the whole does, and returns the
    memory [B, S, D]. What lies beyond a row's length means nothing.
    """
    names = ("source_ids", "source_lengths")
    inputs = {name: model.input[name] for name in names}
    memory = model.get_layer("encoder_final_dropout").output
    return keras.Model(inputs, memory, name="encoder")


def forward_flops(
    config: T5Config, context: int, target_context: int | None = None
) -> float:
    """Returns the multiply-adds of one token's forward pass, times two.

    The mean over `context` tokens of a source, read, and `target_context` tokens of
    a target (None: as many), written.
    """
    target_context = target_context or context
    size = config.head_size or config.width // config.num_heads
    projection = config.width * config.num_heads * size
    score = 2 * config.num_heads * size  # With a key, and of its value.
    gated = 2 if config.activation == "relu" else 3
    feed_forward = gated * config.width * config.inner_dim
    read = config.num_layers * (4 * projection + score * context + feed_forward)
    read += config.decoder_layers * 2 * projection  # Keys and values of the memory.
    written = config.decoder_layers * (
        6 * projection + score * (context + target_context) + feed_forward
    )
    written += config.vocab_size * config.width
    total = context * read + target_context * written
    return 2 * total / (context + target_context)


class T5Decoder:
    """Cached decoding over the very layers of a built model.

    The state is a dict of tensors with leading dimension B. Of the source, never
    changed by a step: `memory_keys_0`, `memory_values_0` and so on, each
    [B, N, S, H], and `memory_lengths` int32 [B]. Of the target: `keys_0`,
    `values_0` and so on, each [B, N, C, H], zero from slot `position` on; and
    `position` int32 [B], the next slot to write.

    Args:
        model: From `build_t5`.
        jit: Whether XLA will compile `step`.
    """

    prompt_in_cache = False  # The prompt is the source; slots hold the target alone.

    def __init__(self, model: keras.Model, jit: bool = False):
        self.model = model
        self.jit = jit
        self.config = model.config
        self.encoder = encoder(model)
        self.token_embedding = model.get_layer("token_embedding")
        self.relative_bias = model.get_layer("relative_bias")
        self.blocks = [
            model.get_layer(f"block_{i}") for i in range(self.config.decoder_layers)
        ]
        self.final_norm = model.get_layer("final_norm")
        self.project = output_head(model, jit)

    def prefill(self, token_ids, lengths, capacity):
        """Reads right-padded sources, then the start of every target.

        Args:
            token_ids: Int32 [B, S].
            lengths: Int32 [B], each from 1 to S: the real tokens of each row.
            capacity: C >= 1, the target's slots; int or scalar tensor.

        Returns:
            Logits float32 [B, V] for the first token of the target, and the state.

        Raises:
            ValueError: A source or a capacity longer than `max_positions`.
        """
        most = self.config.max_positions
        check_capacity(token_ids.shape[1], token_ids.shape[1], most)
        check_capacity(1, capacity, most)
        token_ids = ops.convert_to_tensor(token_ids)
        lengths = ops.cast(lengths, "int32")
        batch = ops.shape(token_ids)[0]
        memory = self.encoder({"source_ids": token_ids, "source_lengths": lengths})
        state = {"memory_lengths": lengths, "position": ops.zeros_like(lengths)}
        for i, block in enumerate(self.blocks):
            keys, values = block.cross_attention.read(memory)
            state[f"memory_keys_{i}"], state[f"memory_values_{i}"] = keys, values
            shape = (batch, keys.shape[1], capacity, keys.shape[3])
            state[f"keys_{i}"] = ops.zeros(shape, dtype=keys.dtype)
            state[f"values_{i}"] = ops.zeros(shape, dtype=keys.dtype)
        return self.step(ops.full_like(lengths, self.config.start_id), state)

    def step(self, token_ids, state):
        """Runs one token per row.

        Args:
            token_ids: Int32 [B].
            state: From `prefill` or `step`. What a row gets whose cache is full
                means nothing.

        Returns:
            Logits float32 [B, V] for the token after it, and the new state.
        """
        _, heads, capacity, _ = ops.shape(state["keys_0"])
        # A row that its caller has no more use for may run on in a full cache.
        position = ops.minimum(state["position"], capacity - 1)
        # All that depends on the position alone, once for all blocks.
        slots = caches.slots(position, heads)
        slot_1C = ops.arange(capacity, dtype="int32")[None]
        bias = self.relative_bias(position[:, None], slot_1C)
        bias = bias + masks.as_bias(masks.cached(position, capacity))
        length = ops.shape(state["memory_keys_0"])[2]
        real = memory_mask(state["memory_lengths"], length)
        x = self.token_embedding(token_ids)
        new_state = dict(state)
        for i, block in enumerate(self.blocks):
            keys, values = f"keys_{i}", f"values_{i}"
            x, new_state[keys], new_state[values] = block.step(
                x,
                state[keys],
                state[values],
                slots,
                bias,
                compiled=self.jit,
                memory=(state[f"memory_keys_{i}"], state[f"memory_values_{i}"]),
                memory_mask=real,
            )
        new_state["position"] = position + 1
        return self.project(self.final_norm(x)), new_state
