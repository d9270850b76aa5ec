"""Llama: rotary positions, RMSNorm, SwiGLU, grouped queries, no biases."""

import dataclasses

import keras
from keras import ops

from keras_llm.core import Config, checks
from keras_llm.layers import (
    DecoderBlock,
    DocumentLayout,
    Dropout,
    Linear,
    RMSNorm,
    TokenEmbedding,
)
from keras_llm.models.fitted import Model
from keras_llm.models.transformer import (
    TransformerDecoder,
    check_buildable,
    check_sizes,
    normal,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RotaryScaling(Config):
    """How rotary positions reach beyond the length of the first training.

    Source: Grattafiori et al. 2024, https://arxiv.org/abs/2407.21783.
    """

    factor: float = 8.0  # How much longer texts may be.
    low_frequency_factor: float = 1.0  # Fewer turns are slowed by `factor`.
    high_frequency_factor: float = 4.0  # More turns are left as they are.
    original_positions: int = 8_192  # Length that turns are counted over, in tokens.

    def __post_init__(self):
        checks.check_in_range("factor", self.factor, 1, float("inf"))
        checks.check_positive("low_frequency_factor", self.low_frequency_factor)
        checks.check_positive("original_positions", self.original_positions)
        if not self.high_frequency_factor > self.low_frequency_factor:
            raise ValueError(
                "`high_frequency_factor` must be above `low_frequency_factor`. "
                f"Received: {self.high_frequency_factor}, {self.low_frequency_factor}."
            )

    def numbers(self) -> tuple[float, float, float, int]:
        """Returns what `ops.rotary.frequencies` takes."""
        return (
            self.factor,
            self.low_frequency_factor,
            self.high_frequency_factor,
            self.original_positions,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class LlamaConfig(Config):
    """Sizes of a Llama, and of those who share its design.

    With `window` it is Mistral's shape, with `query_key_value_bias` Qwen2's, with
    `query_key_norm` Qwen3's, with `rotary_scaling` that of Llama 3.1 and later.

    Source: Touvron et al. 2023, section 2.2, https://arxiv.org/abs/2302.13971;
    Jiang et al. 2023 (grouped queries, window), https://arxiv.org/abs/2310.06825;
    Yang et al. 2024, https://arxiv.org/abs/2407.10671, and 2025 (norms of queries and
    keys), https://arxiv.org/abs/2505.09388.

    >>> LlamaConfig(num_heads=12, key_value_heads=5)
    Traceback (most recent call last):
    ...
    ValueError: `num_heads` must be a multiple of `key_value_heads`. Received: \
num_heads=12, key_value_heads=5. Change `num_heads` to 10 or 15, or change \
`key_value_heads`.
    """

    architecture = "llama"

    vocab_size: int = 0  # 0: the tokenizer's, filled in when training starts.
    max_positions: int = 2_048  # Longest row, in tokens.
    width: int = 768
    num_layers: int = 12
    num_heads: int = 12
    key_value_heads: int | None = None  # None: num_heads.
    head_size: int | None = None  # None: width / num_heads. Even.
    # None: 8/3 * width, rounded up to a multiple of 64.
    feed_forward_width: int | None = None
    rotary_base: float = 10_000.0  # Longest wavelength / (2 pi), in tokens.
    rotary_scaling: RotaryScaling | None = None
    query_key_value_bias: bool = False  # Beside which no projection has a bias.
    query_key_norm: bool = False  # Whether each head of queries and keys is normed.
    window: int | None = None  # Tokens in reach of each token; None: all.
    tied: bool = False  # Whether the output shares the embedding's table.
    dropout: float = 0.0  # Share of values dropped while training.
    epsilon: float = 1e-5  # Of the norms.
    # Attention does not cross this id; None: off.
    separator_id: int | None = None

    def __post_init__(self):
        if self.head_size is not None:
            checks.check_positive("head_size", self.head_size)
        check_sizes(self)
        if self.key_value_heads is not None:
            checks.check_divides(
                "key_value_heads", self.key_value_heads, "num_heads", self.num_heads
            )
        size = self.head_size or self.width // self.num_heads
        if size % 2:
            raise ValueError(
                "The head size must be even, since rotary positions turn pairs of "
                f"features. Received: {size}. Change `head_size`, `width` or "
                "`num_heads`."
            )
        checks.check_positive("rotary_base", self.rotary_base)
        if self.window is not None:
            checks.check_positive("window", self.window)

    @property
    def inner_dim(self) -> int:
        """Width inside the feed-forward layers."""
        return self.feed_forward_width or -(-8 * self.width // (3 * 64)) * 64


def build_llama(config: LlamaConfig, dtype=None) -> keras.Model:
    """Returns a functional model from token ids [B, T] to logits [B, T, V].

    Args:
        config: Its `vocab_size` must be filled in.
        dtype: A dtype or a policy such as "mixed_bfloat16" for every layer; None
            for Keras' global policy. Logits are float32 in any case.

    Raises:
        ValueError: `vocab_size` is 0.

    >>> config = LlamaConfig(vocab_size=11, width=8, num_layers=2, num_heads=2)
    >>> build_llama(config)(np.array([[1, 2, 3]])).shape
    TensorShape([1, 3, 11])
    """
    check_buildable(config)
    # Layers.
    token_embedding = TokenEmbedding(
        config.vocab_size, config.width, normal(), name="token_embedding", dtype=dtype
    )
    documents = DocumentLayout(
        config.separator_id, config.window, name="documents", dtype=dtype
    )
    dropout = Dropout(config.dropout, name="embedding_dropout", dtype=dtype)
    blocks = [_block(config, i, dtype) for i in range(config.num_layers)]
    final_norm = RMSNorm(config.epsilon, name="final_norm", dtype=dtype)
    # Graph.
    token_ids = keras.Input((None,), dtype="int32", name="token_ids")
    _, bias = documents(token_ids)
    x = dropout(token_embedding(token_ids))
    for block in blocks:
        x = block(x, bias=documents.spared(bias))
    x = final_norm(x)
    if config.tied:
        logits = token_embedding(x, reverse=True)
    else:
        head = Linear(config.vocab_size, False, normal(), name="head", dtype=dtype)
        logits = ops.cast(head(x), "float32")
    model = Model(token_ids, logits, name="llama")
    model.config = config
    return model


def _block(config, i, dtype):
    """Returns the i-th block."""
    return DecoderBlock(
        config.num_heads,
        config.inner_dim,
        config.key_value_heads,
        config.head_size,
        norm="rms_norm",
        activation="swiglu",
        rotary_base=config.rotary_base,
        window=config.window,
        use_bias=False,
        dropout=config.dropout,
        epsilon=config.epsilon,
        kernel_initializer=normal(),
        output_initializer=normal(2 * config.num_layers),
        attention={
            "use_bias": config.query_key_value_bias,
            "query_key_norm": config.epsilon if config.query_key_norm else None,
            "rotary_scaling": config.rotary_scaling and config.rotary_scaling.numbers(),
        },
        name=f"block_{i}",
        dtype=dtype,
    )


class LlamaDecoder(TransformerDecoder):
    """Cached decoding for a model from `build_llama`."""

    def embed(self, token_ids, positions):
        """Returns [..., D]: the tokens' vectors; attention rotates by position."""
        del positions
        return self.token_embedding(token_ids)
