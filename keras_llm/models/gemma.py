"""Gemma: a Llama with gated GELU, wide heads, scaled embeddings and a tied output.

Version 2 also norms what each branch adds, bounds scores and logits, and lets blocks
near and far take turns.
"""

import dataclasses

import keras

from keras_llm.core import Config, checks
from keras_llm.layers import (
    DecoderBlock,
    DocumentLayout,
    Dropout,
    RMSNorm,
    TokenEmbedding,
)
from keras_llm.models.fitted import Model
from keras_llm.models.transformer import (
    TransformerDecoder,
    check_buildable,
    check_sizes,
    normal,
    soft_capped,
)
from keras_llm.ops import masks


@dataclasses.dataclass(frozen=True, kw_only=True)
class GemmaConfig(Config):
    """Sizes of a Gemma; the defaults are Gemma 2B's, of version 1.

    Source: Gemma Team 2024, https://arxiv.org/abs/2403.08295, table 1; version 2:
    https://arxiv.org/abs/2408.00118, section 2.

    >>> GemmaConfig(full_every=2)
    Traceback (most recent call last):
    ...
    ValueError: `full_every` says which blocks have no window, so it needs `window`. \
Received: full_every=2, window=None.
    """

    architecture = "gemma"

    vocab_size: int = 0  # 0: the tokenizer's, filled in when training starts.
    max_positions: int = 8_192  # Longest row, in tokens.
    width: int = 2_048
    num_layers: int = 18
    num_heads: int = 8
    key_value_heads: int = 1
    head_size: int = 256  # Even.
    feed_forward_width: int = 16_384
    rotary_base: float = 10_000.0  # Longest wavelength / (2 pi), in tokens.
    post_norm: bool = False  # Whether each branch is normed before it is added.
    score_divisor: int | None = None  # Scores are divided by its root; None: head_size.
    score_soft_cap: float | None = None  # Bound on attention's scores; None: none.
    logit_soft_cap: float | None = None  # Bound on the logits; None: none.
    window: int | None = None  # Tokens in reach of each token; None: all.
    # Of so many blocks, the last reaches all tokens in spite of `window`; None: none.
    full_every: int | None = None
    dropout: float = 0.0  # Share of values dropped while training.
    epsilon: float = 1e-6  # Of the norms.
    # Attention does not cross this id; None: off.
    separator_id: int | None = None

    def __post_init__(self):
        check_sizes(self)
        checks.check_positive("head_size", self.head_size)
        checks.check_divides(
            "key_value_heads", self.key_value_heads, "num_heads", self.num_heads
        )
        checks.check_divides("pairs", 2, "head_size", self.head_size)
        checks.check_positive("rotary_base", self.rotary_base)
        for name in ("score_divisor", "score_soft_cap", "logit_soft_cap", "window"):
            if getattr(self, name) is not None:
                checks.check_positive(name, getattr(self, name))
        if self.full_every is not None:
            checks.check_positive("full_every", self.full_every)
            if self.window is None:
                raise ValueError(
                    "`full_every` says which blocks have no window, so it needs "
                    f"`window`. Received: full_every={self.full_every}, window=None."
                )

    @property
    def inner_dim(self) -> int:
        """Width inside the feed-forward layers."""
        return self.feed_forward_width

    def is_full(self, block: int) -> bool:
        """Returns whether a block reaches all tokens."""
        every = self.full_every
        return self.window is None or (every is not None and (block + 1) % every == 0)


def build_gemma(config: GemmaConfig, dtype=None) -> keras.Model:
    """Returns a functional model from token ids [B, T] to logits [B, T, V].

    Args:
        config: Its `vocab_size` must be filled in.
        dtype: A dtype or a policy such as "mixed_bfloat16" for every layer; None
            for Keras' global policy. Logits are float32 in any case.

    Raises:
        ValueError: `vocab_size` is 0.

    >>> config = GemmaConfig(
    ...     vocab_size=11, width=8, num_layers=2, num_heads=2, head_size=6,
    ...     feed_forward_width=16, window=3, full_every=2,
    ... )
    >>> build_gemma(config)(np.array([[1, 2, 3]])).shape
    TensorShape([1, 3, 11])
    """
    check_buildable(config)
    # Layers.
    token_embedding = TokenEmbedding(
        config.vocab_size,
        config.width,
        normal(),
        vector_scale=config.width**0.5,
        name="token_embedding",
        dtype=dtype,
    )
    documents = DocumentLayout(config.separator_id, name="documents", dtype=dtype)
    near_documents = DocumentLayout(
        config.separator_id, config.window, name="near_documents", dtype=dtype
    )
    dropout = Dropout(config.dropout, name="embedding_dropout", dtype=dtype)
    blocks = [_block(config, i, dtype) for i in range(config.num_layers)]
    final_norm = RMSNorm(config.epsilon, True, name="final_norm", dtype=dtype)
    # Graph.
    token_ids = keras.Input((None,), dtype="int32", name="token_ids")
    bias = documents.spared(documents(token_ids)[1])
    near_bias = near_documents.spared(near_documents(token_ids)[1])
    x = dropout(token_embedding(token_ids))
    for i, block in enumerate(blocks):
        x = block(x, bias=bias if config.is_full(i) else near_bias)
    logits = token_embedding(final_norm(x), reverse=True)
    logits = soft_capped(logits, config.logit_soft_cap)
    model = Model(token_ids, logits, name="gemma")
    model.config = config
    return model


def _block(config, i, dtype):
    """Returns block `i`."""
    return DecoderBlock(
        config.num_heads,
        config.inner_dim,
        config.key_value_heads,
        config.head_size,
        norm="zero_centred_rms_norm",
        activation="geglu_tanh",
        rotary_base=config.rotary_base,
        window=None if config.is_full(i) else config.window,
        use_bias=False,
        dropout=config.dropout,
        epsilon=config.epsilon,
        kernel_initializer=normal(),
        output_initializer=normal(2 * config.num_layers),
        post_norm=config.post_norm,
        attention={
            "scale": config.score_divisor and config.score_divisor**-0.5,
            "soft_cap": config.score_soft_cap,
        },
        name=f"block_{i}",
        dtype=dtype,
    )


class GemmaDecoder(TransformerDecoder):
    """Cached decoding for a model from `build_gemma`."""

    def __init__(self, model: keras.Model, jit: bool = False):
        super().__init__(model, jit)
        self.all_documents = DocumentLayout(self.config.separator_id)

    def embed(self, token_ids, positions):
        """Returns [..., D]: the tokens' vectors; attention rotates by position."""
        del positions
        return self.token_embedding(token_ids)

    def prefill_layout(self, token_ids):
        """Returns positions [B or 1, T] and each block's bias [B or 1, 1, T, T]."""
        _, near_bias = self.documents(token_ids)
        positions, bias = self.all_documents(token_ids)
        return positions, self._by_block(bias, near_bias)

    def step_biases(self, position, capacity, start):
        """Returns each block's bias [B, 1, 1, C]."""
        return self._by_block(
            masks.as_bias(masks.cached(position, capacity, None, start)),
            masks.as_bias(masks.cached(position, capacity, self.window, start)),
        )

    def _by_block(self, bias, near_bias):
        layers = range(self.config.num_layers)
        return [bias if self.config.is_full(i) else near_bias for i in layers]
