"""One pre-norm Transformer block: attention, to a memory too if asked, feed-forward."""

import keras

from keras_llm.core import checks
from keras_llm.layers.attention import MultiHeadAttention
from keras_llm.layers.cross_attention import CrossAttention
from keras_llm.layers.dropout import Dropout
from keras_llm.layers.feed_forward import FeedForward
from keras_llm.layers.norms import LayerNorm, RMSNorm

NORMS = ("layer_norm", "rms_norm", "zero_centred_rms_norm")


@keras.saving.register_keras_serializable(package="keras_llm")
class DecoderBlock(keras.layers.Layer):
    """Attention and feed-forward, each normed before and added to its input.

    a = x + dropout(attention(norm(x))); y = a + dropout(feed_forward(norm(a))). With
    `cross_attention` one more branch stands between the two:
    a + dropout(cross_attention(norm(a), memory)).

    Args:
        num_heads: N, the number of query heads.
        inner_dim: F, the width inside the feed-forward.
        key_value_heads: K; None for N.
        head_size: H; None for D / N.
        norm: "layer_norm"; or "rms_norm", which never has a bias; or
            "zero_centred_rms_norm", the same whose scale counts from 1.
        activation: As in `FeedForward`.
        rotary_base: Base of the rotary positions; None for none.
        window: Tokens in reach of each token; None for all before it.
        use_bias: Whether projections and layer norms have biases.
        dropout: Share of values dropped while training: in both branches' results
            and among the attention weights.
        epsilon: Of the norms.
        seed: Of the dropouts.
        kernel_initializer: Of the projections out of the residual stream.
        output_initializer: Of the projections into it; None for the same.
        scale: Factor on attention's scores; None for 1 / sqrt(H).
        inner_dropout: Share of values dropped inside the feed-forward.
        cross_attention: Whether the block attends to a memory as well.
        query_key_value_bias: Whether queries, keys and values have a bias; None for
            `use_bias`.
        query_key_norm: Whether each head of queries and keys is normed.
        rotary_scaling: As in `MultiHeadAttention`.
        soft_cap: Bound on attention's scores; None for none.
        post_norm: Whether each branch is normed once more before it is added.

    Call arguments:
        x: Float tensor [B, T, D].
        mask, positions, bias, rotary: As in `MultiHeadAttention`.
        memory, memory_mask: As in `CrossAttention`; needed there, refused elsewhere.
        training: Whether dropout is on.

    Returns:
        Tensor [B, T, D].

    Raises:
        ValueError: An unknown `norm`, a memory given or missing against
            `cross_attention`, or what the parts refuse.

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
        scale=None,
        inner_dropout=0.0,
        cross_attention=False,
        query_key_value_bias=None,
        query_key_norm=False,
        rotary_scaling=None,
        soft_cap=None,
        post_norm=False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        checks.check_choice("norm", norm, NORMS)
        self.num_heads = num_heads
        self.inner_dim = inner_dim
        self.key_value_heads = key_value_heads
        self.head_size = head_size
        self.norm = norm
        self.activation = activation
        self.rotary_base = rotary_base
        self.window = window
        self.use_bias = use_bias
        self.dropout = dropout
        self.epsilon, self.seed = epsilon, seed
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.output_initializer = keras.initializers.get(output_initializer)
        self.scale = scale
        self.inner_dropout = inner_dropout
        self.has_cross_attention = cross_attention
        self.query_key_value_bias = query_key_value_bias
        self.query_key_norm = query_key_norm
        self.rotary_scaling = rotary_scaling and tuple(rotary_scaling)
        self.soft_cap = soft_cap
        self.post_norm = post_norm
        self.supports_masking = True

    def build(self, x_shape, memory_shape=None):
        """Makes the norms, `attention`, `cross_attention` and `feed_forward`."""
        self.attention_norm = self._norm("attention_norm", x_shape)
        self._build_attention(x_shape)
        self.feed_forward_norm = self._norm("feed_forward_norm", x_shape)
        self.feed_forward = FeedForward(
            self.inner_dim,
            self.activation,
            self.use_bias,
            kernel_initializer=_copy(self.kernel_initializer),
            output_initializer=_copy(self.output_initializer),
            dropout=self.inner_dropout,
            seed=self._seed(3),
            name="feed_forward",
            dtype=self.dtype_policy,
        )
        self.attention_dropout = self._dropout("attention_dropout", 1)
        self.feed_forward_dropout = self._dropout("feed_forward_dropout", 2)
        self.feed_forward.build(x_shape)
        if self.post_norm:
            self.attention_post_norm = self._norm("attention_post_norm", x_shape)
            self.feed_forward_post_norm = self._norm("feed_forward_post_norm", x_shape)
        if self.has_cross_attention:
            self._build_cross_attention(x_shape, memory_shape)

    def _build_attention(self, x_shape):
        self.attention = MultiHeadAttention(
            self.num_heads,
            self.key_value_heads,
            self.head_size,
            rotary_base=self.rotary_base,
            window=self.window,
            use_bias=(
                self.use_bias
                if self.query_key_value_bias is None
                else self.query_key_value_bias
            ),
            dropout=self.dropout,
            seed=self.seed,
            kernel_initializer=_copy(self.kernel_initializer),
            output_initializer=_copy(self.output_initializer),
            scale=self.scale,
            output_bias=self.use_bias,
            query_key_norm=self.epsilon if self.query_key_norm else None,
            rotary_scaling=self.rotary_scaling,
            soft_cap=self.soft_cap,
            name="attention",
            dtype=self.dtype_policy,
        )
        self.attention.build(x_shape)

    def _build_cross_attention(self, x_shape, memory_shape):
        self.cross_attention_norm = self._norm("cross_attention_norm", x_shape)
        self.cross_attention = CrossAttention(
            self.num_heads,
            self.head_size,
            self.use_bias,
            self.dropout,
            self._seed(4),
            _copy(self.kernel_initializer),
            _copy(self.output_initializer),
            self.scale,
            name="cross_attention",
            dtype=self.dtype_policy,
        )
        self.cross_attention_dropout = self._dropout("cross_attention_dropout", 5)
        self.cross_attention.build(x_shape, memory_shape)

    def _norm(self, name, x_shape):
        """Returns a built norm."""
        options = {"name": name, "dtype": self.dtype_policy}
        if self.norm == "layer_norm":
            norm = LayerNorm(self.epsilon, self.use_bias, **options)
        else:
            norm = RMSNorm(self.epsilon, self.norm != "rms_norm", **options)
        norm.build(x_shape)
        return norm

    def _dropout(self, name, number):
        return Dropout(
            self.dropout, self._seed(number), name=name, dtype=self.dtype_policy
        )

    def _seed(self, number):
        """Returns a seed; `number` tells the block's dropouts apart."""
        return None if self.seed is None else self.seed + number

    def call(
        self,
        x,
        mask=None,
        positions=None,
        bias=None,
        rotary=None,
        memory=None,
        memory_mask=None,
        training=False,
    ):
        """Returns [B, T, D]."""
        if (memory is not None) != self.has_cross_attention:
            raise ValueError(
                "A block takes `memory` where cross_attention=True, and only there. "
                f"Received: memory {'missing' if memory is None else 'given'}, "
                f"cross_attention={self.has_cross_attention}."
            )
        branch = self.attention(
            self.attention_norm(x),
            mask=mask,
            positions=positions,
            bias=bias,
            rotary=rotary,
            training=training,
        )
        if self.post_norm:
            branch = self.attention_post_norm(branch)
        x = x + self.attention_dropout(branch, training=training)
        if memory is not None:
            branch = self.cross_attention(
                self.cross_attention_norm(x),
                memory,
                memory_mask=memory_mask,
                training=training,
            )
            x = x + self.cross_attention_dropout(branch, training=training)
        return self._finish(x, training)

    def prefill(self, x_BTD, real_BT, capacity, bias=None, rotary=None):
        """Returns [B, T, D] and the caches, as `MultiHeadAttention.prefill`."""
        branch, keys, values = self.attention.prefill(
            self.attention_norm(x_BTD), real_BT, capacity, bias, rotary
        )
        if self.post_norm:
            branch = self.attention_post_norm(branch)
        return self._finish(x_BTD + branch), keys, values

    def step(
        self,
        x_BD,
        keys,
        values,
        slots,
        bias,
        rotary=None,
        compiled=False,
        memory=None,
        memory_mask=None,
    ):
        """Returns [B, D] and the caches, as `MultiHeadAttention.step`.

        `memory` is the pair of keys and values from `cross_attention.read`.
        """
        branch, keys, values = self.attention.step(
            self.attention_norm(x_BD), keys, values, slots, bias, rotary, compiled
        )
        if self.post_norm:
            branch = self.attention_post_norm(branch)
        x_BD = x_BD + branch
        if memory is not None:
            x_BD = x_BD + self.cross_attention.attend(
                self.cross_attention_norm(x_BD),
                *memory,
                memory_mask,
                compiled=compiled,
            )
        return self._finish(x_BD), keys, values

    def _finish(self, x, training=False):
        """Adds the feed-forward's branch."""
        branch = self.feed_forward(self.feed_forward_norm(x), training=training)
        if self.post_norm:
            branch = self.feed_forward_post_norm(branch)
        return x + self.feed_forward_dropout(branch, training=training)

    def get_config(self):
        """Returns the constructor's arguments."""
        serialize = keras.initializers.serialize
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "inner_dim": self.inner_dim,
            "key_value_heads": self.key_value_heads,
            "head_size": self.head_size,
            "norm": self.norm,
            "activation": self.activation,
            "rotary_base": self.rotary_base,
            "window": self.window,
            "use_bias": self.use_bias,
            "dropout": self.dropout,
            "epsilon": self.epsilon,
            "seed": self.seed,
            "kernel_initializer": serialize(self.kernel_initializer),
            "output_initializer": self.output_initializer
            and serialize(self.output_initializer),
            "scale": self.scale,
            "inner_dropout": self.inner_dropout,
            "cross_attention": self.has_cross_attention,
            "query_key_value_bias": self.query_key_value_bias,
            "query_key_norm": self.query_key_norm,
            "rotary_scaling": self.rotary_scaling,
            "soft_cap": self.soft_cap,
            "post_norm": self.post_norm,
        }


def _copy(initializer):
    """Returns an initializer of its own: one instance repeats its numbers."""
    return None if initializer is None else initializer.clone()
