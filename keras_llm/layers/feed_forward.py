"""The position-wise network between two attentions."""

import keras

from keras_llm.core import checks
from keras_llm.layers.dropout import Dropout
from keras_llm.layers.linear import Linear
from keras_llm.ops import activations


@keras.saving.register_keras_serializable(package="keras_llm")
class FeedForward(keras.layers.Layer):
    """Two projections with a non-linearity between, back to the same width.

    gelu:      y = gelu(x @ inner) @ output, gelu(a) = a * Phi(a)
    gelu_tanh: the same with the tanh approximation of Phi, as GPT-2 has it
    relu:      y = max(x @ inner, 0) @ output
    swiglu:    y = (silu(gate) * up) @ output, [gate, up] = x @ inner
    geglu_tanh: the same with the tanh approximation of gelu in place of silu

    Args:
        inner_dim: F, the width between the projections.
        activation: "gelu", "gelu_tanh", "relu", "swiglu", "geglu" or
            "geglu_tanh".
        use_bias: Whether both projections add a bias.
        kernel_initializer: Of the first kernel.
        output_initializer: Of the second kernel; None for the same.
        dropout: Share of what enters the second projection that is dropped while
            training.
        seed: Of the dropout.

    Call arguments:
        x: Float tensor [..., D].
        training: Whether to drop.

    Returns:
        Tensor [..., D] in the layer's compute dtype.

    Raises:
        ValueError: `inner_dim` is not positive or `activation` is unknown.

    Source: Hendrycks and Gimpel 2016, https://arxiv.org/abs/1606.08415; Shazeer
    2020, eq. 5 and 6, https://arxiv.org/abs/2002.05202.

    >>> FeedForward(16, activation="swiglu")(np.ones((2, 3, 4))).shape
    TensorShape([2, 3, 4])
    """

    def __init__(
        self,
        inner_dim,
        activation="gelu",
        use_bias=True,
        kernel_initializer="glorot_uniform",
        output_initializer=None,
        dropout=0.0,
        seed=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        checks.check_positive("inner_dim", inner_dim)
        checks.check_choice("activation", activation, activations.ACTIVATIONS)
        self.inner_dim = inner_dim
        self.activation = activation
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.output_initializer = keras.initializers.get(output_initializer)
        self.dropout_rate = dropout
        self.seed = seed
        self.supports_masking = True

    def build(self, x_shape):
        """Makes the projections `inner` and `output`."""
        # Gate and up lie side by side in one kernel: one product instead of two.
        self.inner = Linear(
            self.inner_dim * (2 if self.activation in activations.GATED else 1),
            self.use_bias,
            self.kernel_initializer,
            name="inner",
            dtype=self.dtype_policy,
        )
        self.output_projection = Linear(
            x_shape[-1],
            self.use_bias,
            self.output_initializer or self.kernel_initializer.clone(),
            name="output",
            dtype=self.dtype_policy,
        )
        self.dropout = Dropout(
            self.dropout_rate, self.seed, name="dropout", dtype=self.dtype_policy
        )
        self.inner.build(x_shape)
        self.output_projection.build((*x_shape[:-1], self.inner_dim))

    def call(self, x, training=False):
        """Returns [..., D]."""
        x = activations.activate(self.inner(x), self.activation)
        return self.output_projection(self.dropout(x, training=training))

    def get_config(self):
        """Returns the constructor's arguments."""
        serialize = keras.initializers.serialize
        return {
            **super().get_config(),
            "inner_dim": self.inner_dim,
            "activation": self.activation,
            "use_bias": self.use_bias,
            "kernel_initializer": serialize(self.kernel_initializer),
            "output_initializer": self.output_initializer
            and serialize(self.output_initializer),
            "dropout": self.dropout_rate,
            "seed": self.seed,
        }
