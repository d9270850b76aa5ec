"""BERT: a bidirectional encoder with segments, under one of five heads."""

import dataclasses

import keras

from keras_llm.core import Config, checks
from keras_llm.layers import (
    Dropout,
    EncoderBlock,
    LayerNorm,
    LearnedPositions,
    Linear,
    RowLayout,
    TokenEmbedding,
)
from keras_llm.models import heads
from keras_llm.models.fitted import Model
from keras_llm.models.transformer import check_buildable, check_sizes, normal

ACTIVATIONS = ("gelu", "gelu_tanh")


@dataclasses.dataclass(frozen=True, kw_only=True)
class BertConfig(Config):
    """Sizes of a BERT and the head on it; the sizes' defaults are BERT base's.

    Source: Devlin et al. 2019, section 3, https://arxiv.org/abs/1810.04805.

    >>> BertConfig(head="classify", pooling="last")
    Traceback (most recent call last):
    ...
    ValueError: `pooling` must be one of 'first', 'mean', 'max', 'attention'. \
Received: pooling='last'.
    """

    architecture = "bert"

    vocab_size: int = 0  # 0: the tokenizer's, filled in when training starts.
    max_positions: int = 512  # Longest row, in tokens.
    width: int = 768
    num_layers: int = 12
    num_heads: int = 12
    feed_forward_width: int | None = None  # None: 4 * width.
    activation: str = "gelu"  # Or "gelu_tanh", its approximation.
    num_segments: int = 2  # Segment ids, from 0.
    embedding_width: int | None = None  # Projected to `width`; None: the same.
    dropout: float = 0.1  # Share of values dropped while training.
    epsilon: float = 1e-12  # Of the layer norms.
    head: str = "masked_lm"  # Or "classify", "tag", "answer", "embed".
    # Of heads "classify" and "tag": the classes' names, in the order of the logits.
    labels: tuple[str, ...] = ()
    # Of heads "classify" and "embed": as in `layers.Pooling`.
    pooling: str = "first"
    # Of head "classify": of the layer before the logits; "gelu" is ELECTRA's.
    pooler_activation: str = "tanh"
    normalize: bool = False  # Of head "embed": whether vectors get length 1.

    def __post_init__(self):
        check_sizes(self)
        checks.check_positive("num_segments", self.num_segments)
        checks.check_choice("activation", self.activation, ACTIVATIONS)
        if self.embedding_width is not None:
            checks.check_positive("embedding_width", self.embedding_width)
        heads.check_head(self)

    @property
    def inner_dim(self) -> int:
        """Width inside the feed-forward layers."""
        return self.feed_forward_width or 4 * self.width

    @property
    def table_width(self) -> int:
        """Width of the embeddings."""
        return self.embedding_width or self.width


def build_bert(config: BertConfig, dtype=None) -> keras.Model:
    """Returns a functional model over right-padded rows.

    Its inputs are a dict: `token_ids` int32 [B, T]; `segment_ids` int32 [B, T], each
    below `num_segments`; `lengths` int32 [B], the real tokens of each row. The
    output, always float32, is the head's:

    | head | output |
    |---|---|
    | "masked_lm" | logits [B, T, V] |
    | "classify" | logits [B, L], L labels: pooled, then a layer of its own |
    | "tag" | logits [B, T, L] |
    | "answer" | logits [B, T, 2] of the answer's start and end; -1e9 at padding |
    | "embed" | vectors [B, D] |

    What stands at padding means nothing otherwise. A row of length 0 gives finite
    numbers: a pooled vector of zeros.

    An id beyond its table's end (a segment of `num_segments` or above, a row longer
    than `max_positions`) is not looked for at each call: on CPU TensorFlow raises
    InvalidArgumentError, on GPU it reads zeros, and JAX gives NaN.

    Args:
        config: Its `vocab_size`, and `labels` where the head has some, filled in.
        dtype: A dtype or a policy such as "mixed_bfloat16" for every layer; None
            for Keras' global policy.

    Raises:
        ValueError: `vocab_size` is 0, or `labels` are missing.

    >>> config = BertConfig(vocab_size=11, width=8, num_layers=2, num_heads=2)
    >>> model = build_bert(config)
    >>> ids = np.array([[1, 2, 3]])
    >>> rows = {"token_ids": ids, "segment_ids": 0 * ids, "lengths": np.array([3])}
    >>> model(rows).shape
    TensorShape([1, 3, 11])
    """
    check_buildable(config)
    heads.check_labels(config)
    # Layers.
    embeddings = Embeddings(config, dtype)
    projection = embedding_projection(config, dtype)
    blocks = encoder_blocks(config, dtype)
    # Graph.
    inputs = encoder_inputs()
    positions, real = RowLayout(name="layout", dtype=dtype)(
        inputs["token_ids"], inputs["lengths"]
    )
    x = embeddings(inputs["token_ids"], inputs["segment_ids"], positions)
    x = projection(x)
    for block in blocks:
        x = block(x, mask=real)
    x = keras.layers.Identity(name="final_norm", dtype=dtype)(x)
    output = heads.attach_head(config, x, real, embeddings.tokens, dtype)
    model = Model(inputs, output, name="bert")
    model.config = config
    return model


def encoder_inputs() -> dict[str, keras.KerasTensor]:
    """Returns the inputs `token_ids`, `segment_ids` [B, T] and `lengths` [B]."""
    shapes = {"token_ids": (None,), "segment_ids": (None,), "lengths": ()}
    return {
        name: keras.Input(shape, dtype="int32", name=name)
        for name, shape in shapes.items()
    }


class Embeddings:
    """The three tables whose sum enters an encoder, normed.

    x = dropout(norm(token + position + segment)).

    Args:
        config: A `BertConfig`, or one with its fields.
        dtype: As in `build_bert`.
        use_output_bias: Whether logits of the token table get a bias.
    """

    def __init__(self, config, dtype, use_output_bias=None):
        if use_output_bias is None:
            use_output_bias = config.head == "masked_lm"
        width = config.table_width
        self.tokens = TokenEmbedding(
            config.vocab_size,
            width,
            normal(),
            use_output_bias,
            name="token_embedding",
            dtype=dtype,
        )
        self.positions = LearnedPositions(
            config.max_positions,
            width,
            normal(),
            name="position_embedding",
            dtype=dtype,
        )
        self.segments = TokenEmbedding(
            config.num_segments, width, normal(), name="segment_embedding", dtype=dtype
        )
        self.norm = LayerNorm(config.epsilon, name="embedding_norm", dtype=dtype)
        self.dropout = Dropout(config.dropout, name="embedding_dropout", dtype=dtype)

    def __call__(self, token_ids, segment_ids, positions):
        """Returns [B, T, E], E the tables' width."""
        x = self.tokens(token_ids) + self.positions(positions)
        return self.dropout(self.norm(x + self.segments(segment_ids)))


def embedding_projection(config, dtype, prefix=""):
    """Returns the layer from the tables' width to the blocks', or one that passes."""
    if config.table_width == config.width:
        return lambda x: x
    return Linear(
        config.width,
        kernel_initializer=normal(),
        name=f"{prefix}embedding_projection",
        dtype=dtype,
    )


def encoder_blocks(config, dtype, prefix="") -> list[EncoderBlock]:
    """Returns the blocks, named `block_0` and so on after `prefix`."""
    return [
        EncoderBlock(
            config.num_heads,
            config.inner_dim,
            activation=config.activation,
            dropout=config.dropout,
            epsilon=config.epsilon,
            kernel_initializer=normal(),
            name=f"{prefix}block_{i}",
            dtype=dtype,
        )
        for i in range(config.num_layers)
    ]


def forward_flops(config: BertConfig, context: int) -> int:
    """Returns the multiply-adds of one token's forward pass, times two.

    Attention over `context` tokens adds two products of D per token and layer. What
    a loss or a pooling runs on some tokens alone is left out: the masked-LM head,
    the pooler, the classes of a row.
    """
    width = config.width
    per_layer = 4 * width**2 + 2 * width * config.inner_dim + 2 * width * context
    total = config.num_layers * per_layer
    if config.table_width != width:
        total += config.table_width * width
    if config.head in ("tag", "answer"):
        total += width * (len(config.labels) or 2)
    return 2 * total
