"""A recurrent decoder's look at the encoder's memory, with one head."""

import abc

import keras
from keras import ops

from keras_llm.core import checks
from keras_llm.layers.linear import Linear
from keras_llm.ops import attention, masks


class _MemoryAttention(keras.layers.Layer, abc.ABC):
    """Owner of the call; a subclass gives the scores of queries against keys."""

    def __init__(self, kernel_initializer, **kwargs):
        super().__init__(**kwargs)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.supports_masking = True

    def call(self, x, memory, memory_mask=None):
        """Returns [B, T, M]."""
        return self.attend(x, *self.read(memory), memory_mask)

    def read(self, memory_BSM):
        """Returns the memory's keys, and the memory itself as values."""
        return self.key(memory_BSM), ops.cast(memory_BSM, self.compute_dtype)

    def attend(self, x, keys, values, memory_mask=None):
        """Looks into a memory that has been read.

        Args:
            x: Float tensor [B, T, D], or [B, D] for one token per row.
            keys: From `read`.
            values: From `read`.
            memory_mask: Bool [B, S], True for real tokens; None where all are.

        Returns:
            Tensor [B, T, M], or [B, M].
        """
        x_BTD = x[:, None] if len(x.shape) == 2 else x
        scores_BTS = self._scores(ops.cast(x_BTD, self.compute_dtype), keys)
        if memory_mask is not None:
            scores_BTS = scores_BTS + masks.as_bias(memory_mask)[:, None]
        weights_BTS = attention.softmax(scores_BTS, self.compute_dtype)
        y_BTM = ops.matmul(weights_BTS, values)
        return y_BTM[:, 0] if len(x.shape) == 2 else y_BTM

    @abc.abstractmethod
    def _scores(self, x_BTD, keys):
        """Returns float32 [B, T, S]."""

    def _linear(self, out_dim, name):
        initializer = self.kernel_initializer.clone()
        return Linear(out_dim, False, initializer, name=name, dtype=self.dtype_policy)

    def get_config(self):
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }


@keras.saving.register_keras_serializable(package="keras_llm")
class MultiplicativeAttention(_MemoryAttention):
    """Takes the mean of a memory, weighted by products of queries and keys.

    y = softmax(x @ transpose(memory @ key)) @ memory. The softmax runs in float32.
    `read` and `attend` are the call's two halves, the first for a whole text, the
    second for each of its tokens.

    Args:
        kernel_initializer: Of the projection `key` [M, D].

    Call arguments:
        x: Float tensor [B, T, D].
        memory: Float tensor [B, S, M], with S for the tokens of the source.
        memory_mask: Bool [B, S], True for real tokens; None where all are.

    Returns:
        Tensor [B, T, M] in the layer's compute dtype. Where a row's memory holds
        nothing real, the mean of all of it: finite, but without meaning.

    Source: Luong et al. 2015, section 3.1, "general",
    https://arxiv.org/abs/1508.04025.

    >>> MultiplicativeAttention()(np.ones((2, 3, 8)), np.ones((2, 5, 4))).shape
    TensorShape([2, 3, 4])
    """

    def __init__(self, kernel_initializer="glorot_uniform", **kwargs):
        super().__init__(kernel_initializer, **kwargs)

    def build(self, x_shape, memory_shape=None):
        """Makes the projection `key`."""
        self.key = self._linear(x_shape[-1], "key")
        self.key.build(memory_shape or x_shape)

    def _scores(self, x_BTD, keys_BSD):
        scores_BTS = ops.einsum("btd,bsd->bts", x_BTD, keys_BSD)
        return ops.cast(scores_BTS, "float32")


@keras.saving.register_keras_serializable(package="keras_llm")
class AdditiveAttention(_MemoryAttention):
    """Takes the mean of a memory, weighted by a small network over query and key.

    y = softmax(score . tanh(x @ query + memory @ key)) @ memory. The softmax runs in
    float32. Over a whole target this holds B T S A values at a time. `read` and
    `attend` are the call's two halves, the first for a whole text, the second for
    each of its tokens.

    Args:
        units: A, the width of that network.
        kernel_initializer: Of the projections `query` [D, A] and `key` [M, A].

    Call arguments:
        x: Float tensor [B, T, D].
        memory: Float tensor [B, S, M], with S for the tokens of the source.
        memory_mask: Bool [B, S], True for real tokens; None where all are.

    Returns:
        Tensor [B, T, M] in the layer's compute dtype. Where a row's memory holds
        nothing real, the mean of all of it: finite, but without meaning.

    Raises:
        ValueError: `units` is not positive.

    Source: Bahdanau et al. 2015, appendix A.1.2, https://arxiv.org/abs/1409.0473.

    >>> AdditiveAttention(7)(np.ones((2, 3, 8)), np.ones((2, 5, 4))).shape
    TensorShape([2, 3, 4])
    """

    def __init__(self, units, kernel_initializer="glorot_uniform", **kwargs):
        super().__init__(kernel_initializer, **kwargs)
        checks.check_positive("units", units)
        self.units = units

    def build(self, x_shape, memory_shape=None):
        """Makes the projections `query` and `key`, and `score` [A]."""
        self.query = self._linear(self.units, "query")
        self.key = self._linear(self.units, "key")
        self.query.build(x_shape)
        self.key.build(memory_shape or x_shape)
        self.score = self.add_weight(
            name="score",
            shape=(self.units,),
            initializer=keras.initializers.RandomNormal(stddev=self.units**-0.5),
        )

    def _scores(self, x_BTD, keys_BSA):
        inner_BTSA = ops.tanh(self.query(x_BTD)[:, :, None] + keys_BSA[:, None])
        return ops.cast(ops.einsum("btsa,a->bts", inner_BTSA, self.score), "float32")

    def get_config(self):
        """Returns the constructor's arguments."""
        return {**super().get_config(), "units": self.units}
