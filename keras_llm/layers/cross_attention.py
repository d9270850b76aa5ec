"""Attention of one sequence to another: a decoder's look at the encoder's memory."""

import keras
from keras import ops

from keras_llm.core import checks
from keras_llm.layers.dropout import Dropout
from keras_llm.layers.initializers import ScaledColumns
from keras_llm.layers.linear import Linear
from keras_llm.ops import attention, masks


@keras.saving.register_keras_serializable(package="keras_llm")
class CrossAttention(keras.layers.Layer):
    """Lets every token take a weighted mean of a memory, in each of N heads.

    q = x @ query; [k, v] = memory @ key_value; per head
    y = softmax(q @ transpose(k) * scale) @ v; result = y @ output. The softmax runs
    in float32.

    Three entries share every weight and every inner function: calling the layer,
    `read` (the memory's keys and values, once for a whole text) and `attend`, which
    is the call after `read` and serves decoding.

    Args:
        num_heads: N.
        head_size: H; None for D / N.
        use_bias: Whether the projections add a bias.
        dropout: Share of attention weights dropped while training.
        seed: Of the dropout.
        kernel_initializer: Of the projections `query` [D, N H] and `key_value`
            [M, 2 N H].
        output_initializer: Of the output projection [N H, D]; None for the same.
        scale: As in `MultiHeadAttention`.

    Call arguments:
        x: Float tensor [B, T, D].
        memory: Float tensor [B, S, M], with S for the tokens of the source.
        memory_mask: Bool [B, S], True for real tokens; None where all are.
        training: Whether attention weights are dropped.

    Returns:
        Tensor [B, T, D] in the layer's compute dtype. Where a row's memory holds
        nothing real, the mean of all its values: finite, but without meaning.

    Raises:
        ValueError: A size below 1, or heads that do not divide D.

    Source: Vaswani et al. 2017, section 3.2.3, https://arxiv.org/abs/1706.03762.

    >>> cross = CrossAttention(num_heads=2)
    >>> cross(np.ones((2, 3, 8)), np.ones((2, 5, 4))).shape
    TensorShape([2, 3, 8])
    """

    def __init__(
        self,
        num_heads,
        head_size=None,
        use_bias=True,
        dropout=0.0,
        seed=None,
        kernel_initializer="glorot_uniform",
        output_initializer=None,
        scale=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        checks.check_positive("num_heads", num_heads)
        for name, value in (("head_size", head_size), ("scale", scale)):
            if value is not None:
                checks.check_positive(name, value)
        self.num_heads = num_heads
        self.head_size = head_size
        self.use_bias = use_bias
        self.dropout_rate = dropout
        self.seed = seed
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.output_initializer = keras.initializers.get(output_initializer)
        self.scale = scale
        self.supports_masking = True

    def build(self, x_shape, memory_shape=None):
        """Makes the projections `query`, `key_value` and `output`."""
        width = x_shape[-1]
        if self.head_size is None:
            checks.check_divides("num_heads", self.num_heads, "width", width)
        self._size = self.head_size or width // self.num_heads
        self._scale = self._size**-0.5 if self.scale is None else self.scale
        inner = self.num_heads * self._size
        first, second = self.kernel_initializer, self.kernel_initializer.clone()
        if self.scale is not None:
            first = ScaledColumns(first, inner, self._size**-0.5 / self.scale)
        last = self.output_initializer or self.kernel_initializer.clone()
        self.query = self._linear(inner, first, "query")
        self.key_value = self._linear(2 * inner, second, "key_value")
        self.output_projection = self._linear(width, last, "output")
        self.query.build(x_shape)
        self.key_value.build(x_shape if memory_shape is None else memory_shape)
        self.output_projection.build((*x_shape[:-1], inner))
        self.dropout = Dropout(
            self.dropout_rate, self.seed, name="dropout", dtype=self.dtype_policy
        )

    def _linear(self, out_dim, initializer, name):
        return Linear(
            out_dim, self.use_bias, initializer, name=name, dtype=self.dtype_policy
        )

    def call(self, x, memory, memory_mask=None, training=False):
        """Returns [B, T, D]."""
        return self.attend(x, *self.read(memory), memory_mask, training)

    def read(self, memory_BSM):
        """Returns the memory's keys and values, each [B, N, S, H]."""
        length = ops.shape(memory_BSM)[1]
        fused = ops.reshape(
            self.key_value(memory_BSM), (-1, length, 2 * self.num_heads, self._size)
        )
        return ops.split(ops.transpose(fused, (0, 2, 1, 3)), 2, axis=1)

    def attend(self, x, keys, values, memory_mask=None, training=False, compiled=False):
        """Looks into a memory that has been read.

        Args:
            x: Float tensor [B, T, D], or [B, D] for one token per row.
            keys: From `read`.
            values: From `read`.
            memory_mask: As in the call.
            training: As in the call.
            compiled: Whether XLA compiles the caller, which has one token per row.

        Returns:
            Tensor like `x`.
        """
        heads, size = self.num_heads, self._size
        bias = None
        if memory_mask is not None:
            bias = masks.as_bias(masks.padding(memory_mask))
        length = 1 if len(x.shape) == 2 else ops.shape(x)[1]
        query = ops.reshape(self.query(x), (-1, length, heads, size))
        y_BNTH = attention.attend(
            ops.transpose(query, (0, 2, 1, 3)),
            keys,
            values,
            bias,
            self._scale,
            lambda weights: self.dropout(weights, training=training),
            compiled,
        )
        y_BTNH = ops.transpose(y_BNTH, (0, 2, 1, 3))
        shape = (-1, length, heads * size) if len(x.shape) == 3 else (-1, heads * size)
        return self.output_projection(ops.reshape(y_BTNH, shape))

    def get_config(self):
        """Returns the constructor's arguments."""
        serialize = keras.initializers.serialize
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "head_size": self.head_size,
            "use_bias": self.use_bias,
            "dropout": self.dropout_rate,
            "seed": self.seed,
            "kernel_initializer": serialize(self.kernel_initializer),
            "output_initializer": self.output_initializer
            and serialize(self.output_initializer),
            "scale": self.scale,
        }
