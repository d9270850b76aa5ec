"""Normalisation of feature vectors, with statistics in float32."""

import keras
from keras import ops

from keras_llm.core import checks


class _Norm(keras.layers.Layer):
    """Owner of `scale` and `bias`; a subclass gives the formula."""

    first_scale = "ones"  # Initializer of `scale`.

    def __init__(self, epsilon, use_bias, **kwargs):
        super().__init__(**kwargs)
        checks.check_not_negative("epsilon", epsilon)
        self.epsilon = epsilon
        self.use_bias = use_bias
        self.supports_masking = True

    def build(self, x_shape):
        """Makes `scale` [D] and `bias` [D]."""
        shape = (x_shape[-1],)
        # Kept out of autocasting: the whole computation runs in float32.
        self.scale = self.add_weight(
            name="scale", shape=shape, initializer=self.first_scale, autocast=False
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias", shape=shape, initializer="zeros", autocast=False
            )

    def _wide(self, tensor):
        """Casts to float32, or leaves float64 as it is."""
        return ops.cast(tensor, keras.backend.result_type(tensor.dtype, "float32"))


@keras.saving.register_keras_serializable(package="keras_llm")
class LayerNorm(_Norm):
    """Shifts and scales each feature vector to mean 0 and variance 1.

    y = (x - mean(x)) / sqrt(var(x) + epsilon) * scale + bias, with the biased
    variance. Mean and variance are taken in float32 whatever the compute dtype.

    Args:
        epsilon: Added under the root, in units of x**2.
        use_bias: Whether a bias is added.

    Call arguments:
        x: Float tensor [..., D]; D must be known when the layer is built.

    Returns:
        Tensor [..., D] in the layer's compute dtype.

    Raises:
        ValueError: `epsilon` is negative.

    Source: Ba et al. 2016, eq. 4, https://arxiv.org/abs/1607.06450.

    >>> np.asarray(LayerNorm(epsilon=0.0)(np.array([[3.0, 5.0]])))
    array([[-1.,  1.]], dtype=float32)
    """

    def __init__(self, epsilon=1e-5, use_bias=True, **kwargs):
        super().__init__(epsilon, use_bias, **kwargs)

    def call(self, x):
        """Returns [..., D]."""
        x = self._wide(x)
        mean = ops.mean(x, axis=-1, keepdims=True)
        centred = x - mean
        variance = ops.mean(ops.square(centred), axis=-1, keepdims=True)
        y = centred * ops.rsqrt(variance + self.epsilon) * self._wide(self.scale)
        if self.bias is not None:
            y = y + self._wide(self.bias)
        return ops.cast(y, self.compute_dtype)

    def get_config(self):
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "epsilon": self.epsilon,
            "use_bias": self.use_bias,
        }


@keras.saving.register_keras_serializable(package="keras_llm")
class RMSNorm(_Norm):
    """Divides each feature vector by its root mean square, then rescales it.

    y = x / sqrt(mean(x**2) + epsilon) * scale. The mean is taken in float32: the
    square of a float16 value above 255 overflows.

    Args:
        epsilon: Added under the root, in units of x**2.
        zero_centred: Whether `scale` counts from 1: it starts at 0, weight decay
            pulls towards no rescaling, and y is multiplied by 1 + scale.

    Call arguments:
        x: Float tensor [..., D]; D must be known when the layer is built.

    Returns:
        Tensor [..., D] in the layer's compute dtype.

    Raises:
        ValueError: `epsilon` is negative.

    Source: Zhang and Sennrich 2019, eq. 4, https://arxiv.org/abs/1910.07467.

    >>> y = RMSNorm(epsilon=0.0)(np.array([[3.0, 4.0]]))
    >>> np.asarray(y).round(4)
    array([[0.8485, 1.1314]], dtype=float32)
    """

    def __init__(self, epsilon=1e-5, zero_centred=False, **kwargs):
        super().__init__(epsilon, False, **kwargs)
        self.zero_centred = zero_centred
        if zero_centred:
            self.first_scale = "zeros"

    def call(self, x):
        """Returns [..., D]."""
        x = self._wide(x)
        power = ops.mean(ops.square(x), axis=-1, keepdims=True)
        scale = self._wide(self.scale)
        y = x * ops.rsqrt(power + self.epsilon)
        y = y * (1.0 + scale if self.zero_centred else scale)
        return ops.cast(y, self.compute_dtype)

    def get_config(self):
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "epsilon": self.epsilon,
            "zero_centred": self.zero_centred,
        }
