"""GPT-2: learned positions, pre-LayerNorm, GELU, output tied to the embedding."""

import dataclasses

import keras

from keras_llm.core import Config
from keras_llm.layers import (
    DecoderBlock,
    DocumentLayout,
    Dropout,
    LayerNorm,
    LearnedPositions,
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
class GPT2Config(Config):
    """Sizes of a GPT-2; the defaults are GPT-2 small's.

    Source: Radford et al. 2019, "Language Models are Unsupervised Multitask
    Learners", table 2 and section 2.3.

    >>> GPT2Config(width=100, num_heads=12)
    Traceback (most recent call last):
    ...
    ValueError: `width` must be a multiple of `num_heads`. Received: width=100, \
num_heads=12. Change `width` to 96 or 108, or change `num_heads`.
    """

    architecture = "gpt2"

    vocab_size: int = 0  # 0: the tokenizer's, filled in when training starts.
    max_positions: int = 1_024  # Longest row, in tokens.
    width: int = 768
    num_layers: int = 12
    num_heads: int = 12
    feed_forward_width: int | None = None  # None: 4 * width.
    use_bias: bool = True  # In projections and layer norms.
    dropout: float = 0.0  # Share of values dropped while training.
    epsilon: float = 1e-5  # Of the layer norms.
    # Attention does not cross this id and positions restart at it; None: off.
    separator_id: int | None = None

    def __post_init__(self):
        check_sizes(self)

    @property
    def inner_dim(self) -> int:
        """Width inside the feed-forward layers."""
        return self.feed_forward_width or 4 * self.width


def build_gpt2(config: GPT2Config, dtype=None) -> keras.Model:
    """Returns a functional model from token ids [B, T] to logits [B, T, V].

    Args:
        config: Its `vocab_size` must be filled in.
        dtype: A dtype or a policy such as "mixed_bfloat16" for every layer; None
            for Keras' global policy. Logits are float32 in any case.

    Raises:
        ValueError: `vocab_size` is 0.

    >>> config = GPT2Config(vocab_size=11, width=8, num_layers=2, num_heads=2)
    >>> build_gpt2(config)(np.array([[1, 2, 3]])).shape
    TensorShape([1, 3, 11])
    """
    check_buildable(config)
    # Layers.
    token_embedding = TokenEmbedding(
        config.vocab_size, config.width, normal(), name="token_embedding", dtype=dtype
    )
    position_embedding = LearnedPositions(
        config.max_positions,
        config.width,
        normal(),
        name="position_embedding",
        dtype=dtype,
    )
    documents = DocumentLayout(config.separator_id, name="documents", dtype=dtype)
    dropout = Dropout(config.dropout, name="embedding_dropout", dtype=dtype)
    blocks = [
        DecoderBlock(
            config.num_heads,
            config.inner_dim,
            activation="gelu_tanh",
            use_bias=config.use_bias,
            dropout=config.dropout,
            epsilon=config.epsilon,
            kernel_initializer=normal(),
            output_initializer=normal(2 * config.num_layers),
            name=f"block_{i}",
            dtype=dtype,
        )
        for i in range(config.num_layers)
    ]
    final_norm = LayerNorm(
        config.epsilon, config.use_bias, name="final_norm", dtype=dtype
    )
    # Graph.
    token_ids = keras.Input((None,), dtype="int32", name="token_ids")
    positions, bias = documents(token_ids)
    x = dropout(token_embedding(token_ids) + position_embedding(positions))
    for block in blocks:
        x = block(x, bias=documents.spared(bias))
    logits = token_embedding(final_norm(x), reverse=True)
    model = Model(token_ids, logits, name="gpt2")
    model.config = config
    return model


class GPT2Decoder(TransformerDecoder):
    """Cached decoding for a model from `build_gpt2`."""

    def __init__(self, model: keras.Model, jit: bool = False):
        super().__init__(model, jit)
        self.position_embedding = model.get_layer("position_embedding")

    def embed(self, token_ids, positions):
        """Returns [..., D]: the token's vector plus its position's."""
        return self.token_embedding(token_ids) + self.position_embedding(positions)
