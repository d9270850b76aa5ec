"""What a dense projection learns beside its frozen kernel: LoRA, rsLoRA and DoRA."""

import contextlib

import keras
from keras import ops

from keras_llm.core import checks
from keras_llm.layers.dropout import Dropout
from keras_llm.ops import low_rank


@keras.saving.register_keras_serializable(package="keras_llm")
class LowRankAdapter(keras.layers.Layer):
    """Adds a product of two thin matrices to a projection, once it is started.

    y' = y + scale * drop(x) @ down @ up, where y = x @ kernel. With a magnitude m
    (DoRA), y' is multiplied by m / |column of kernel + scale * down @ up|, whose
    length counts as a constant for the gradient, as DoRA's section 4.3 has it.

    Every `Linear` has one. It holds no weight, and is not called, until `start`.

    Call arguments:
        x: Float tensor [..., D], what the projection reads.
        y: Float tensor [..., E], what it gives, before its bias.
        kernel: Float tensor [D, E], the projection's own.
        training: Whether to drop.

    Returns:
        Tensor [..., E]. As it starts, `up` is zero and y' is y.

    Source: Hu et al. 2021, https://arxiv.org/abs/2106.09685; Kalajdzievski 2023
    (scale = alpha / sqrt(rank)), https://arxiv.org/abs/2312.03732; Liu et al. 2024
    (DoRA), https://arxiv.org/abs/2402.09353.

    >>> adapter, kernel = LowRankAdapter(), np.ones((3, 5), "float32")
    >>> adapter.start(kernel, rank=2, scale=1.0)
    >>> x = np.ones((4, 3), "float32")
    >>> adapter(x, x @ kernel, kernel).shape
    TensorShape([4, 5])
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.started = False

    def start(
        self, kernel, rank, scale, dropout=0.0, has_magnitude=False, seed=None, path=""
    ):
        """Makes the weights: `down` [D, R], `up` [R, E] and `magnitude` [E].

        Args:
            kernel: The kernel [D, E] that is adapted; the magnitude starts with the
                lengths of its columns.
            rank: R.
            scale: Factor on the product.
            dropout: Share of x that is dropped while training, for this part alone.
            has_magnitude: Whether it is DoRA's.
            seed: Of `down` and of the dropout.
            path: Of the projection, which the weights' paths begin with.

        Raises:
            ValueError: A size out of range, or it was started before.
        """
        checks.check_positive("rank", rank)
        if self.started:
            raise ValueError(
                "A projection has one adapter at a time. Received: a second one for "
                f"{path or self.name}. Merge the first, or load the model anew."
            )
        in_dim, out_dim = kernel.shape
        self.started, self.scale = True, scale
        self.has_magnitude = has_magnitude
        with contextlib.ExitStack() as scopes:
            for name in filter(None, path.split("/")):
                scopes.enter_context(keras.name_scope(name))
            self.dropout = Dropout(
                dropout, seed, name="dropout", dtype=self.dtype_policy
            )
            self.build((in_dim, rank, out_dim), seed)
        if has_magnitude:
            self.magnitude.assign(low_rank.column_lengths(kernel))

    def build(self, sizes, seed=None):
        """Makes the weights of sizes (D, R, E)."""
        in_dim, rank, out_dim = sizes
        bound = in_dim**-0.5  # As a dense layer's own weights begin in PyTorch.
        self.down = self.add_weight(
            name="down",
            shape=(in_dim, rank),
            initializer=keras.initializers.RandomUniform(-bound, bound, seed),
        )
        self.up = self.add_weight(name="up", shape=(rank, out_dim), initializer="zeros")
        self.magnitude = None
        if self.has_magnitude:
            self.magnitude = self.add_weight(
                name="magnitude", shape=(out_dim,), initializer="ones"
            )

    def call(self, x, y, kernel, training=False):
        """Returns [..., E]."""
        thin = ops.matmul(self.dropout(x, training=training), self.down)
        y = y + self.scale * ops.matmul(thin, self.up)
        if self.magnitude is None:
            return y
        lengths = low_rank.column_lengths(
            low_rank.merged_kernel(kernel, self.down, self.up, self.scale)
        )
        return y * (self.magnitude / ops.stop_gradient(lengths))

    def merged(self, kernel):
        """Returns the kernel [D, E] that does the same without an adapter."""
        return low_rank.merged_kernel(
            kernel, self.down, self.up, self.scale, self.magnitude
        )
