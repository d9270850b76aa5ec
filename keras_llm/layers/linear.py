"""A dense projection: the one place where a matrix of weights is multiplied."""

import keras
from keras import ops

from keras_llm.core import checks
from keras_llm.layers.low_rank_adapter import LowRankAdapter
from keras_llm.ops import products


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
        self.packed = None  # Another way to multiply by the kernel.
        self.bank = None  # Of saved adapters, chosen row by row.
        # Without weights, and not called, unless `models.add_adapter` starts it.
        self.adapter = LowRankAdapter(name="adapter", dtype=self.dtype_policy)

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
        if self.packed is not None or self.adapter.started or self.bank is not None:
            y = self._product(x)
            return y if self.bias is None else ops.add(y, self.bias)
        if self.bias is None:
            return ops.matmul(x, self.kernel)
        # On rows the bias follows its product at once: TensorFlow makes them one op.
        *outer, width = ops.shape(x)
        y = ops.matmul(ops.reshape(x, (-1, width)), self.kernel) + self.bias
        return ops.reshape(y, (*outer, self.out_dim))

    def _product(self, x):
        """Returns [..., out_dim] without the bias, by the ways that are set by hand."""
        if self.adapter.started:
            kernel = ops.convert_to_tensor(self.kernel)
            return self.adapter(x, ops.matmul(x, kernel), kernel)
        y = ops.matmul(x, self.kernel) if self.packed is None else self.packed(x)
        return y if self.bank is None else self.bank(x, y)

    def pack(self):
        """Multiplies by a packed copy of the kernel from now on.

        Raises:
            ValueError: The layer has an adapter, which a copy would leave out, or
                multiplies by something else already.
        """
        if self.packed is not None:
            raise ValueError(
                "A kernel is packed once, and not if it is quantised. Received: "
                f"{self.path}, which multiplies by a {type(self.packed).__name__}."
            )
        if self.adapter.started:
            raise ValueError(
                "A kernel is packed without an adapter beside it. Received: "
                f"{self.path}, which has one. Merge it first: models.merged(model)."
            )
        self.packed = PackedKernel(self)

    def unpack(self):
        """Multiplies by the kernel itself again."""
        self.packed = None

    def get_config(self):
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "out_dim": self.out_dim,
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }


class PackedKernel:
    """The kernel of a `Linear` in panels; no weight of that layer.

    Args:
        linear: A built `Linear`.
    """

    def __init__(self, linear):
        self.columns = linear.out_dim
        self.compute_dtype = linear.compute_dtype
        self.variable = keras.Variable(
            products.pack(linear.kernel),
            dtype=linear.variable_dtype,
            trainable=False,
            name="packed_kernel",
        )

    def __call__(self, x):
        """Returns x @ kernel."""
        panels = ops.cast(self.variable, self.compute_dtype)
        return products.packed_product(x, panels, self.columns)
