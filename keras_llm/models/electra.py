"""ELECTRA: a small generator replaces masked tokens, an encoder tells which."""

import dataclasses

import keras
from keras import ops

from keras_llm.core import Config
from keras_llm.layers import CategoricalSample, Linear, RowLayout
from keras_llm.models import bert, heads
from keras_llm.models.fitted import Model
from keras_llm.models.transfer import transfer_weights
from keras_llm.models.transformer import check_buildable, normal
from keras_llm.ops import masked_tokens
from keras_llm.ops.activations import activate

_GENERATOR = "generator_"  # Before the names of the generator's own layers.


@dataclasses.dataclass(frozen=True, kw_only=True)
class ElectraConfig(Config):
    """Sizes of an ELECTRA; the defaults are ELECTRA small's.

    The sizes are the discriminator's. The generator has as many layers, and
    `generator_fraction` of its width, heads and feed-forward width; both read the
    same embeddings.

    Source: Clark et al. 2020, section 3 and table 6,
    https://arxiv.org/abs/2003.10555.

    >>> config = ElectraConfig(vocab_size=11)
    >>> config.generator.width, config.generator.num_heads, config.generator.inner_dim
    (64, 1, 256)
    """

    architecture = "electra"

    vocab_size: int = 0  # 0: the tokenizer's, filled in when training starts.
    max_positions: int = 512  # Longest row, in tokens.
    width: int = 256
    num_layers: int = 12
    num_heads: int = 4
    feed_forward_width: int | None = None  # None: 4 * width.
    num_segments: int = 2  # Segment ids, from 0.
    embedding_width: int | None = 128  # Projected to each width; None: `width`.
    generator_fraction: float = 0.25  # Of the discriminator's sizes, at most 1.
    dropout: float = 0.1  # Share of values dropped while training.
    epsilon: float = 1e-12  # Of the layer norms.

    def __post_init__(self):
        _ = self.discriminator  # Its own checks name its sizes.
        if not 0 < self.generator_fraction <= 1:
            raise ValueError(
                "`generator_fraction` must be above 0 and at most 1: it is the "
                "generator's share of the discriminator's sizes. Received: "
                f"generator_fraction={self.generator_fraction}."
            )
        width, num_heads, _ = self._generator_sizes()
        if width % num_heads:
            raise ValueError(
                "The generator's width must be a multiple of its heads. Received: "
                f"generator_fraction={self.generator_fraction}, which makes a width "
                f"of {width} with {num_heads} heads. Change `generator_fraction`."
            )

    @property
    def discriminator(self) -> bert.BertConfig:
        """The discriminator as a BERT that gives a vector a row."""
        return self._bert("embed", self.width, self.num_heads, self.feed_forward_width)

    @property
    def generator(self) -> bert.BertConfig:
        """The generator as a BERT with a masked-LM head."""
        return self._bert("masked_lm", *self._generator_sizes())

    def _generator_sizes(self):
        inner = self.feed_forward_width or 4 * self.width
        return [
            max(1, round(size * self.generator_fraction))
            for size in (self.width, self.num_heads, inner)
        ]

    def _bert(self, head, width, num_heads, feed_forward_width):
        return bert.BertConfig(
            vocab_size=self.vocab_size,
            max_positions=self.max_positions,
            width=width,
            num_layers=self.num_layers,
            num_heads=num_heads,
            feed_forward_width=feed_forward_width,
            num_segments=self.num_segments,
            embedding_width=self.embedding_width or self.width,
            dropout=self.dropout,
            epsilon=self.epsilon,
            head=head,
        )


def build_electra(config: ElectraConfig, dtype=None) -> keras.Model:
    """Returns generator and discriminator in one functional model.

    Inputs, a dict of int32 tensors; rows are right-padded:

    | input | |
    |---|---|
    | `token_ids` [B, T] | the text |
    | `masked_ids` [B, T] | the text with mask ids put in, which the generator reads |
    | `masked_positions` [B, M] | where, each position once a row; -1 fills up |
    | `segment_ids` [B, T] | each below `num_segments` |
    | `lengths` [B] | the real tokens of each row |

    Outputs, a dict:

    | output | |
    |---|---|
    | `generator_logits` float32 [B, M, V] | at the masked positions alone |
    | `corrupted_ids` int32 [B, T] | `token_ids` with the generator's tokens put in |
    | `discriminator_logits` float32 [B, T] | positive says "replaced" |

    The generator's tokens are drawn from its distribution while training; otherwise
    the likeliest are taken, so that an evaluation repeats itself. Nothing flows back
    through them: the discriminator's loss moves the generator by the shared
    embeddings alone. Both losses are in `ops.masked_tokens`; the paper trains on
    mean masked-token loss + 50 * mean replaced-token loss.

    The discriminator's weights have the names that `build_bert` gives them; the
    generator's own begin with `generator_`. Ids beyond a table and rows of length 0
    are as in `build_bert`.

    Args:
        config: Its `vocab_size` must be filled in.
        dtype: A dtype or a policy such as "mixed_bfloat16" for every layer; None
            for Keras' global policy.

    Raises:
        ValueError: `vocab_size` is 0.
    """
    check_buildable(config)
    # Layers.
    embeddings = bert.Embeddings(config.discriminator, dtype, use_output_bias=True)
    generator = _Trunk(config.generator, dtype, _GENERATOR)
    discriminator = _Trunk(config.discriminator, dtype)
    generator_head = heads.masked_lm_head(
        config.generator, embeddings.tokens, dtype, _GENERATOR
    )
    sample = CategoricalSample(name="sample", dtype=dtype)
    # Graph.
    inputs = _inputs()
    segment_ids, places = inputs["segment_ids"], inputs["masked_positions"]
    positions, real = RowLayout(name="layout", dtype=dtype)(
        inputs["token_ids"], inputs["lengths"]
    )
    x = embeddings(inputs["masked_ids"], segment_ids, positions)
    x = masked_tokens.take(generator(x, real), places)
    generator_logits = generator_head(x)
    corrupted_ids = masked_tokens.put(
        inputs["token_ids"], places, sample(generator_logits)
    )
    x = discriminator(embeddings(corrupted_ids, segment_ids, positions), real)
    x = keras.layers.Identity(name="final_norm", dtype=dtype)(x)
    outputs = {
        "generator_logits": generator_logits,
        "corrupted_ids": corrupted_ids,
        "discriminator_logits": _replaced_logits(config, x, dtype),
    }
    model = Model(inputs, outputs, name="electra")
    model.config = config
    return model


def _inputs():
    inputs = bert.encoder_inputs()
    for name in ("masked_ids", "masked_positions"):
        inputs[name] = keras.Input((None,), dtype="int32", name=name)
    return inputs


class _Trunk:
    """Blocks behind their own projection of the shared embeddings."""

    def __init__(self, config, dtype, prefix=""):
        self.projection = bert.embedding_projection(config, dtype, prefix)
        self.blocks = bert.encoder_blocks(config, dtype, prefix)

    def __call__(self, x, real):
        x = self.projection(x)
        for block in self.blocks:
            x = block(x, mask=real)
        return x


def _replaced_logits(config, hidden, dtype):
    """Returns float32 [B, T]: positive where a token seems to be replaced."""
    transform = Linear(
        config.width,
        kernel_initializer=normal(),
        name="discriminator_transform",
        dtype=dtype,
    )
    head = Linear(
        1, kernel_initializer=normal(), name="discriminator_head", dtype=dtype
    )
    logits = head(activate(transform(hidden), "gelu"))
    return ops.cast(ops.squeeze(logits, axis=-1), "float32")


def discriminator(model: keras.Model, dtype=None, **changes) -> keras.Model:
    """Returns a BERT with the discriminator's trunk, to be fine-tuned like any.

    Args:
        model: From `build_electra`, trained.
        dtype: As in `build_bert`.
        **changes: Fields of `BertConfig` to set: `head`, `labels`, `pooling` and
            the like; without any, its head is "embed".

    Returns:
        A model as from `build_bert`; what its head learns starts afresh.

    >>> config = ElectraConfig(
    ...     vocab_size=11, width=8, num_layers=1, num_heads=2, embedding_width=6
    ... )
    >>> tagger = discriminator(build_electra(config), head="tag", labels=("B", "O"))
    >>> tagger.config.architecture, tagger.output.shape
    ('bert', (None, None, 2))
    """
    config = model.config.discriminator.replace(**changes)
    target = bert.build_bert(config, dtype)
    transfer_weights(model, target)
    return target


def forward_flops(config: ElectraConfig, context: int) -> int:
    """Returns the multiply-adds of one token's forward pass, times two.

    Both trunks and the discriminator's head; the generator's head, which runs over
    masked tokens alone, is left out.
    """
    trunks = (config.generator, config.discriminator)
    head = config.width**2 + config.width
    return 2 * head + sum(bert.forward_flops(trunk, context) for trunk in trunks)
