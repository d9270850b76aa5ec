"""A variational autoencoder of text: an encoder, a latent, a decoder."""

import dataclasses

import keras
from keras import ops

from keras_llm.core import Config, checks
from keras_llm.layers import (
    BatchNormPosterior,
    BidirectionalLSTM,
    Dropout,
    EncoderBlock,
    GaussianPosterior,
    LayerNorm,
    LearnedPositions,
    Linear,
    Pooling,
    RowLayout,
    TokenEmbedding,
    WordDropout,
)
from keras_llm.models.fitted import Model
from keras_llm.models.latent_writers import writer, writer_layers
from keras_llm.models.transformer import check_buildable, normal

NETWORKS = ("lstm", "transformer")
POSTERIORS = ("gaussian", "batch_norm")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextVAEConfig(Config):
    """Sizes of a variational autoencoder of text.

    Source: Bowman et al. 2016, https://arxiv.org/abs/1511.06349; Zhu et al. 2020,
    https://arxiv.org/abs/2004.12585 (posterior "batch_norm"); Li et al. 2020,
    https://arxiv.org/abs/2004.04092 (Transformers).

    >>> TextVAEConfig(latent_dim=0)
    Traceback (most recent call last):
    ...
    ValueError: `latent_dim` must be positive. Received: latent_dim=0.
    """

    architecture = "text_vae"

    vocab_size: int = 0  # 0: the tokenizer's, filled in when training starts.
    encoder: str = "lstm"  # "lstm", read from both ends, or "transformer".
    decoder: str = "lstm"  # "lstm" or "transformer".
    posterior: str = "gaussian"  # "gaussian" or "batch_norm".
    latent_dim: int = 32
    gamma: float = 0.6  # Deviation of the means over a batch, for "batch_norm".
    width: int = 512  # Of embeddings, LSTM states and Transformer blocks.
    num_layers: int = 1  # Of the encoder, and of the decoder.
    num_heads: int = 8  # Of Transformers.
    feed_forward_width: int | None = None  # Of Transformers; None: 4 * width.
    max_positions: int | None = None  # Longest text; None: no end (LSTMs alone).
    tied: bool = False  # The head is the embedding.
    dropout: float = 0.0  # Share of values dropped while training.
    word_dropout: float = 0.0  # Share of the decoder's ids made unknown in training.
    unknown_id: int | None = None  # What they become; needed by `word_dropout`.
    start_id: int = 0  # What the decoder reads before the first token.
    epsilon: float = 1e-5  # Of the layer norms.

    def __post_init__(self):
        checks.check_not_negative("vocab_size", self.vocab_size)
        checks.check_choice("encoder", self.encoder, NETWORKS)
        checks.check_choice("decoder", self.decoder, NETWORKS)
        checks.check_choice("posterior", self.posterior, POSTERIORS)
        for name in ("latent_dim", "gamma", "width", "num_layers", "epsilon"):
            checks.check_positive(name, getattr(self, name))
        for name in ("max_positions", "feed_forward_width"):
            if getattr(self, name) is not None:
                checks.check_positive(name, getattr(self, name))
        for name in ("dropout", "word_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(
                    f"`{name}` must be at least 0 and below 1. "
                    f"Received: {name}={getattr(self, name)}."
                )
        if "transformer" in (self.encoder, self.decoder):
            checks.check_divides("num_heads", self.num_heads, "width", self.width)
            if self.max_positions is None:
                raise ValueError(
                    "A Transformer learns a vector for each position, so it needs "
                    "`max_positions`, the tokens of the longest text. Received: "
                    "max_positions=None."
                )
        self._check_ids()

    def _check_ids(self):
        if self.word_dropout > 0 and self.unknown_id is None:
            raise ValueError(
                "`word_dropout` replaces ids by `unknown_id`, which must be given. "
                f"Received: word_dropout={self.word_dropout}, unknown_id=None."
            )
        for name in ("start_id", "unknown_id"):
            value = getattr(self, name)
            if value is None:
                continue
            checks.check_not_negative(name, value)
            if self.vocab_size and not value < self.vocab_size:
                raise ValueError(
                    f"`{name}` must be an id of the vocabulary. Received: "
                    f"{name}={value}, vocab_size={self.vocab_size}."
                )

    @property
    def inner_dim(self) -> int:
        """Width inside the feed-forward layers."""
        return self.feed_forward_width or 4 * self.width


def build_text_vae(config: TextVAEConfig, dtype=None) -> keras.Model:
    """Returns a functional model from a text, and the same shifted, to logits and KL.

    It takes a dict: `source_ids` int32 [B, S], the text that the encoder reads;
    `source_lengths` int32 [B], the real tokens of each; `token_ids` int32 [B, T],
    what the decoder reads: `start_id`, then the text without its last token.

    It returns a dict, all float32: `logits` [B, T, V]; `kl` [B, Z], of every row and
    latent dimension, in nats; `mean`, `log_variance` and `z` [B, Z]. While training z
    is drawn from the posterior, otherwise it is the mean.

    Encoder and decoder share the table of embeddings. With posterior "batch_norm" a
    row depends on its batch while training, and only then.

    Args:
        config: Its `vocab_size` must be filled in.
        dtype: A dtype or a policy such as "mixed_bfloat16" for every layer; None
            for Keras' global policy.

    Raises:
        ValueError: `vocab_size` is 0.

    >>> model = build_text_vae(TextVAEConfig(vocab_size=11, latent_dim=2, width=4))
    >>> text = np.array([[5, 6, 7]])
    >>> outputs = model({"source_ids": text, "source_lengths": np.array([3]),
    ...                  "token_ids": np.array([[0, 5, 6]])})
    >>> outputs["logits"].shape, outputs["kl"].shape
    (TensorShape([1, 3, 11]), TensorShape([1, 2]))
    """
    check_buildable(config)
    transformer = "transformer" in (config.encoder, config.decoder)
    token_embedding = TokenEmbedding(
        config.vocab_size,
        config.width,
        # For LSTMs as in `lstm_lm`.
        normal() if transformer else keras.initializers.RandomNormal(stddev=0.05),
        name="token_embedding",
        dtype=dtype,
    )
    layers = {"token_embedding": token_embedding, **writer_layers(config, dtype)}
    word_dropout = WordDropout(
        config.word_dropout, config.unknown_id or 0, name="word_dropout", dtype=dtype
    )
    # Graph.
    inputs = {
        "source_ids": keras.Input((None,), dtype="int32", name="source_ids"),
        "source_lengths": keras.Input((), dtype="int32", name="source_lengths"),
        "token_ids": keras.Input((None,), dtype="int32", name="token_ids"),
    }
    features = _encode(config, token_embedding, inputs, dtype)
    z, mean, log_variance, kl = _posterior(config, inputs, features, dtype)
    x = writer(config, layers).sequence(word_dropout(inputs["token_ids"]), z)
    if config.tied:
        logits = token_embedding(x, reverse=True)
    else:
        head = Linear(config.vocab_size, False, name="head", dtype=dtype)
        logits = ops.cast(head(x), "float32")
    outputs = {
        "logits": logits,
        "kl": kl,
        "mean": mean,
        "log_variance": log_variance,
        "z": z,
    }
    model = Model(inputs, outputs, name="text_vae")
    model.config = config
    return model


def _encode(config, token_embedding, inputs, dtype):
    """Returns one vector of features for each source: [B, D] or [B, 2 D]."""
    layout = RowLayout(name="encoder_layout", dtype=dtype)
    dropout = Dropout(config.dropout, name="encoder_embedding_dropout", dtype=dtype)
    positions, real = layout(inputs["source_ids"], inputs["source_lengths"])
    x = token_embedding(inputs["source_ids"])
    if config.encoder == "transformer":
        position_embedding = LearnedPositions(
            config.max_positions,
            config.width,
            normal(),
            name="encoder_position_embedding",
            dtype=dtype,
        )
        x = dropout(x + position_embedding(positions))
        return _attend(config, x, real, dtype)
    x = dropout(x)
    for i in range(config.num_layers):
        x = BidirectionalLSTM(
            config.width,
            return_sequences=i < config.num_layers - 1,
            dropout=config.dropout,
            name=f"encoder_block_{i}",
            dtype=dtype,
        )(x, mask=real)
    return x


def _attend(config, x, real, dtype):
    """Returns the mean [B, D] of a Transformer encoder's states at real tokens."""
    for i in range(config.num_layers):
        x = EncoderBlock(
            config.num_heads,
            config.inner_dim,
            pre_norm=True,
            activation="gelu_tanh",
            dropout=config.dropout,
            epsilon=config.epsilon,
            kernel_initializer=normal(),
            name=f"encoder_block_{i}",
            dtype=dtype,
        )(x, mask=real)
    x = LayerNorm(config.epsilon, name="encoder_final_norm", dtype=dtype)(x)
    return Pooling("mean", name="encoder_pooling", dtype=dtype)(x, mask=real)


def _posterior(config, inputs, features, dtype):
    """Returns z, mean, log_variance and kl, each [B, Z]."""
    if config.posterior == "gaussian":
        layer = GaussianPosterior(config.latent_dim, name="posterior", dtype=dtype)
        return layer(features)
    layer = BatchNormPosterior(
        config.latent_dim, config.gamma, name="posterior", dtype=dtype
    )
    return layer(features, mask=inputs["source_lengths"] > 0)


def forward_flops(config: TextVAEConfig, context: int) -> int:
    """Returns the multiply-adds of one token's forward pass, times two.

    The mean over the tokens of a row, each of which is read and then written. The
    latent, one for each row, is left out.
    """
    width = config.width

    def transformer_layer():
        return 4 * width * width + 2 * width * config.inner_dim + 2 * width * context

    total = config.vocab_size * width
    for i in range(config.num_layers):
        if config.encoder == "transformer":
            total += transformer_layer()
        else:  # Two directions, which read both directions of the layer below.
            total += 2 * (width * (2 if i else 1) + width) * 4 * width
        if config.decoder == "transformer":
            total += transformer_layer()
        else:
            total += (width + (0 if i else config.latent_dim) + width) * 4 * width
    # Of two operations each, over two tokens: one read, one written.
    return total
