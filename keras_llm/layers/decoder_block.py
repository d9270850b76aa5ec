"""One pre-norm Transformer block: attention, then feed-forward."""

import keras

from keras_llm.core import checks
from keras_llm.layers.attention import MultiHeadAttention
from keras_llm.layers.dropout import Dropout
from keras_llm.layers.feed_forward import FeedForward
from keras_llm.layers.norms import LayerNorm, RMSNorm

NORMS = ("layer_norm", "rms_norm")


def make_norm(kind, epsilon, use_bias, **kwargs):
    """Returns a LayerNorm or an RMSNorm; the latter never has a bias."""
    checks.check_choice("norm", kind, NORMS)
    if kind == "rms_norm":
        return RMSNorm(epsilon, **kwargs)
    return LayerNorm(epsilon, use_bias, **kwargs)


@keras.saving.register_keras_serializable(package="keras_llm")
class DecoderBlock(keras.layers.Layer):
    """Attention and feed-forward, each normed before and added to its input.

    a = x + dropout(attention(norm(x))); y = a + dropout(feed_forward(norm(a))).

    Args:
        num_heads: N, the number of query heads.
        inner_dim: F, the width inside the feed-forward.
        key_value_heads: K; None for N.
        head_size: H; None for D / N.
        norm: "layer_norm" or "rms_norm".
        activation: "gelu", "gelu_tanh" or "swiglu".
        rotary_base: Base of the rotary positions; None for none.
        window: Tokens in reach of each token; None for all before it.
        use_bias: Whether projections and layer norms have biases.
        dropout: Share of values dropped while training: in both branches' results
            and among the attention weights.
        epsilon: Of the norms.
        seed: Of the dropouts.
        kernel_initializer: Of the projections out of the residual stream.
        output_initializer: Of the projections into it; None for the same.

    Call arguments:
        x: Float tensor [B, T, D].
        mask, positions, bias, rotary: As in `MultiHeadAttention`.
        training: Whether dropout is on.

    Returns:
        Tensor [B, T, D].

    Raises:
        ValueError: An unknown `norm`, or what the parts refuse.

    Source: Radford et al. 2019, section 2.3 (pre-norm).

    >>> block = DecoderBlock(num_heads=2, inner_dim=16, norm="rms_norm")
    >>> block(np.ones((2, 3, 4))).shape
    TensorShape([2, 3, 4])
    """

    def __init__(
        self,
        num_heads,
        inner_dim,
        key_value_heads=None,
        head_size=None,
        norm="layer_norm",
        activation="gelu",
        rotary_base=None,
        window=None,
        use_bias=True,
        dropout=0.0,
        epsilon=1e-5,
        seed=None,
        kernel_initializer="glorot_uniform",
        output_initializer=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.arguments = {
            "num_heads": num_heads,
            "inner_dim": inner_dim,
            "key_value_heads": key_value_heads,
            "head_size": head_size,
            "norm": norm,
            "activation": activation,
            "rotary_base": rotary_base,
            "window": window,
            "use_bias": use_bias,
            "dropout": dropout,
            "epsilon": epsilon,
            "seed": seed,
        }
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.output_initializer = keras.initializers.get(output_initializer)
        initializers = (self.kernel_initializer, self.output_initializer)
        policy = {"dtype": self.dtype_policy}
        self.attention_norm = make_norm(
            norm, epsilon, use_bias, name="attention_norm", **policy
        )
        self.attention = MultiHeadAttention(
            num_heads,
            key_value_heads,
            head_size,
            rotary_base=rotary_base,
            window=window,
            use_bias=use_bias,
            dropout=dropout,
            seed=seed,
            kernel_initializer=_copy(initializers[0]),
            output_initializer=_copy(initializers[1]),
            name="attention",
            **policy,
        )
        self.feed_forward_norm = make_norm(
            norm, epsilon, use_bias, name="feed_forward_norm", **policy
        )
        self.feed_forward = FeedForward(
            inner_dim,
            activation,
            use_bias,
            kernel_initializer=_copy(initializers[0]),
            output_initializer=_copy(initializers[1]),
            name="feed_forward",
            **policy,
        )
        later = [None, None] if seed is None else [seed + 1, seed + 2]
        self.attention_dropout = Dropout(
            dropout, later[0], name="attention_dropout", **policy
        )
        self.feed_forward_dropout = Dropout(
            dropout, later[1], name="feed_forward_dropout", **policy
        )
        self.supports_masking = True

    def build(self, x_shape):
        """Builds the parts."""
        self.attention_norm.build(x_shape)
        self.attention.build(x_shape)
        self.feed_forward_norm.build(x_shape)
        self.feed_forward.build(x_shape)

    def call(
        self, x, mask=None, positions=None, bias=None, rotary=None, training=False
    ):
        """Returns [B, T, D]."""
        branch = self.attention(
            self.attention_norm(x),
            mask=mask,
            positions=positions,
            bias=bias,
            rotary=rotary,
            training=training,
        )
        return self._finish(x, branch, training)

    def prefill(self, x_BTD, capacity, bias=None, rotary=None):
        """Returns [B, T, D] and the caches, as `MultiHeadAttention.prefill`."""
        branch, keys, values = self.attention.prefill(
            self.attention_norm(x_BTD), capacity, bias, rotary
        )
        return self._finish(x_BTD, branch, training=False), keys, values

    def step(self, x_BD, keys, values, slots, bias, rotary=None):
        """Returns [B, D] and the caches, as `MultiHeadAttention.step`."""
        branch, keys, values = self.attention.step(
            self.attention_norm(x_BD), keys, values, slots, bias, rotary
        )
        return self._finish(x_BD, branch, training=False), keys, values

    def _finish(self, x, branch, training):
        """Adds the attention's branch, then the feed-forward's."""
        x = x + self.attention_dropout(branch, training=training)
        branch = self.feed_forward(self.feed_forward_norm(x))
        return x + self.feed_forward_dropout(branch, training=training)

    def get_config(self):
        """Returns the constructor's arguments."""
        serialize = keras.initializers.serialize
        return {
            **super().get_config(),
            **self.arguments,
            "kernel_initializer": serialize(self.kernel_initializer),
            "output_initializer": self.output_initializer
            and serialize(self.output_initializer),
        }


def _copy(initializer):
    """Returns an initializer of its own: one instance repeats its numbers."""
    return None if initializer is None else initializer.clone()
