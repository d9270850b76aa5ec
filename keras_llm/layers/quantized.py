"""Matrices of weights in eight bits, which stand for those of a built layer."""

import keras
from keras import ops

from keras_llm.ops import eight_bits


class QuantizedMatrix:
    """A matrix [E, D] in int8, a scale for each row.

    The values become floats when they are used; a quarter of the bytes comes from
    memory.

    Args:
        matrix_ED: Float array or tensor.
        compute_dtype: Of products and vectors.

    >>> matrix = QuantizedMatrix(np.ones((11, 3), "float32"), "float32")
    >>> matrix.product(np.ones((2, 3), "float32")).shape
    TensorShape([2, 11])
    >>> matrix.rows(np.array([[1, 4]])).shape
    TensorShape([1, 2, 3])
    """

    def __init__(self, matrix_ED, compute_dtype):
        values, scale = eight_bits.rounded(ops.convert_to_numpy(matrix_ED))
        self.compute_dtype = compute_dtype
        self.values = keras.Variable(
            values, dtype="int8", trainable=False, name="values"
        )
        self.scale = keras.Variable(
            scale, dtype="float32", trainable=False, name="scale"
        )
        self.variables = [self.values, self.scale]

    def product(self, x):
        """Returns x @ transpose(matrix) [..., E]."""
        x = ops.cast(x, self.compute_dtype)
        return eight_bits.product(x, self.values, self.scale)

    def rows(self, ids):
        """Returns the rows [..., D] that ids [...] name."""
        values = ops.cast(ops.take(self.values, ids, axis=0), self.compute_dtype)
        scale = ops.cast(ops.take(self.scale, ids, axis=0), self.compute_dtype)
        return values * scale[..., None]

    def widened(self):
        """Returns the matrix that the eight bits stand for, float32 [E, D]."""
        return ops.cast(self.values, "float32") * self.scale[:, None]


class QuantizedKernel(QuantizedMatrix):
    """The kernel of a `Linear` in int8, a scale for each output.

    Args:
        linear: A built `Linear`; its kernel becomes what the eight bits stand for, so
            that all ways of computing agree.

    >>> from keras_llm.layers import Linear
    >>> linear = Linear(2, use_bias=False)
    >>> linear.build((None, 3))
    >>> linear.packed = QuantizedKernel(linear)
    >>> linear(np.ones((5, 3))).shape
    TensorShape([5, 2])
    """

    def __init__(self, linear):
        super().__init__(ops.transpose(linear.kernel), linear.compute_dtype)
        linear.kernel.assign(ops.transpose(self.widened()))

    def __call__(self, x):
        """Returns x @ kernel."""
        return self.product(x)


class QuantizedTable(QuantizedMatrix):
    """The table of a `TokenEmbedding` in int8, a scale for each id.

    Args:
        embedding: A built `TokenEmbedding`; its table becomes what the eight bits
            stand for.
    """

    def __init__(self, embedding):
        super().__init__(embedding.embeddings, embedding.compute_dtype)
        embedding.embeddings.assign(self.widened())
