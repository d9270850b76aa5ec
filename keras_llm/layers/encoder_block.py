"""One Transformer block in which every token sees the whole row."""

import keras

from keras_llm.layers.attention import MultiHeadAttention
from keras_llm.layers.dropout import Dropout
from keras_llm.layers.feed_forward import FeedForward
from keras_llm.layers.norms import LayerNorm


@keras.saving.register_keras_serializable(package="keras_llm")
class EncoderBlock(keras.layers.Layer):
    """Attention in both directions and feed-forward, each added to its input.

    The norms stand after each sum, as in BERT:
        a = norm(x + dropout(attention(x))); y = norm(a + dropout(feed_forward(a))),
    or, with `pre_norm`, before each branch:
        a = x + dropout(attention(norm(x))); y = a + dropout(feed_forward(norm(a))).

    Args:
        num_heads: N, the number of heads.
        inner_dim: F, the width inside the feed-forward.
        pre_norm: Whether the norms come before the branches. What leaves the last
            block is then not normed.
        activation: "gelu", "gelu_tanh" or "swiglu".
        dropout: Share of values dropped while training: in both branches' results
            and among the attention weights.
        epsilon: Of the norms.
        seed: Of the dropouts.
        kernel_initializer: Of every projection.

    Call arguments:
        x: Float tensor [B, T, D].
        mask: Bool [B, T], True for real tokens, which alone are attended to; or
            [B or 1, 1, T, T] as in `MultiHeadAttention`.
        training: Whether dropout is on.

    Returns:
        Tensor [B, T, D] in the layer's compute dtype. What stands at padding is
        finite and without meaning, as is all of a row that has no real token.

    Raises:
        ValueError: What the parts refuse.

    Source: Vaswani et al. 2017, section 3.1, https://arxiv.org/abs/1706.03762 (norms
    after the sums); Xiong et al. 2020, https://arxiv.org/abs/2002.04745 (before).

    >>> block = EncoderBlock(num_heads=2, inner_dim=16)
    >>> block(np.ones((2, 3, 4)), mask=np.array([[1, 1, 0], [1, 0, 0]], bool)).shape
    TensorShape([2, 3, 4])
    """

    def __init__(
        self,
        num_heads,
        inner_dim,
        pre_norm=False,
        activation="gelu",
        dropout=0.0,
        epsilon=1e-12,
        seed=None,
        kernel_initializer="glorot_uniform",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.inner_dim = inner_dim
        self.pre_norm = pre_norm
        self.activation = activation
        self.dropout = dropout
        self.epsilon = epsilon
        self.seed = seed
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.supports_masking = True

    def build(self, x_shape):
        """Makes `attention`, `feed_forward` and a norm of each."""
        policy = {"dtype": self.dtype_policy}
        self.attention = MultiHeadAttention(
            self.num_heads,
            causal=False,
            dropout=self.dropout,
            seed=self.seed,
            kernel_initializer=self.kernel_initializer.clone(),
            name="attention",
            **policy,
        )
        self.feed_forward = FeedForward(
            self.inner_dim,
            self.activation,
            kernel_initializer=self.kernel_initializer.clone(),
            name="feed_forward",
            **policy,
        )
        self.attention_norm = LayerNorm(self.epsilon, name="attention_norm", **policy)
        self.feed_forward_norm = LayerNorm(
            self.epsilon, name="feed_forward_norm", **policy
        )
        self.attention_dropout = self._dropout("attention_dropout", 1)
        self.feed_forward_dropout = self._dropout("feed_forward_dropout", 2)
        for part in (
            self.attention,
            self.attention_norm,
            self.feed_forward,
            self.feed_forward_norm,
        ):
            part.build(x_shape)

    def _dropout(self, name, number):
        """Returns a dropout; `number` tells the block's dropouts apart."""
        seed = None if self.seed is None else self.seed + number
        return Dropout(self.dropout, seed, name=name, dtype=self.dtype_policy)

    def call(self, x, mask=None, training=False):
        """Returns [B, T, D]."""

        def attend(x):
            branch = self.attention(x, mask=mask, training=training)
            return self.attention_dropout(branch, training=training)

        def feed(x):
            return self.feed_forward_dropout(self.feed_forward(x), training=training)

        if self.pre_norm:
            x = x + attend(self.attention_norm(x))
            return x + feed(self.feed_forward_norm(x))
        x = self.attention_norm(x + attend(x))
        return self.feed_forward_norm(x + feed(x))

    def get_config(self):
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "inner_dim": self.inner_dim,
            "pre_norm": self.pre_norm,
            "activation": self.activation,
            "dropout": self.dropout,
            "epsilon": self.epsilon,
            "seed": self.seed,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }
