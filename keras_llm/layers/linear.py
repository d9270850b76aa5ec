"""A dense projection: the one place where a matrix of weights is multiplied."""

import keras
from keras import ops

from keras_llm.core import checks


@keras.saving.register_keras_serializable(package="keras_llm")
class Linear(keras.layers.Layer):
    """Multiplies the last axis by a matrix and adds a bias.

    y = x @ kernel + bias.

    Args:
        out_dim: Size of the result's last axis.
        use_bias: Whether a bias is added.
        kernel_initializer: Of the kernel [D, out_dim]; the bias starts at 0.

    Call arguments:
        x: Float tensor [..., D]; D must be known when the layer is built.

    Returns:
        Tensor [..., out_dim] in the layer's compute dtype.

    Raises:
        ValueError: `out_dim` is not positive.

    >>> Linear(5)(np.ones((2, 3))).shape
    TensorShape([2, 5])
    """

    def __init__(
        self, out_dim, use_bias=True, kernel_initializer="glorot_uniform", **kwargs
    ):
        super().__init__(**kwargs)
        checks.check_positive("out_dim", out_dim)
        self.out_dim = out_dim
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.supports_masking = True

    def build(self, x_shape):
        """Makes `kernel` [D, out_dim] and `bias` [out_dim]."""
        self.kernel = self.add_weight(
            name="kernel",
            shape=(x_shape[-1], self.out_dim),
            initializer=self.kernel_initializer,
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias", shape=(self.out_dim,), initializer="zeros"
            )

    def call(self, x):
        """Returns [..., out_dim]."""
        y = ops.matmul(x, self.kernel)
        return y if self.bias is None else ops.add(y, self.bias)

    def get_config(self):
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "out_dim": self.out_dim,
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }
