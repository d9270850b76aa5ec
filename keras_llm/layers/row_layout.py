"""Positions of right-padded rows, and which of their tokens are real."""

import keras
from keras import ops

from keras_llm.ops import masks


@keras.saving.register_keras_serializable(package="keras_llm")
class RowLayout(keras.layers.Layer):
    """Numbers the tokens of a row and tells real ones from padding.

    real[b, t] = t < lengths[b].

    Call arguments:
        token_ids: Int tensor [B, T]; its values do not matter.
        lengths: Int tensor [B], the real tokens of each row; None where all are.

    Returns:
        positions: int32 [1, T], from 0, for all rows alike.
        real: bool [B, T].

    >>> positions, real = RowLayout()(np.zeros((2, 3), "int32"), np.array([2, 0]))
    >>> np.asarray(positions)
    array([[0, 1, 2]], dtype=int32)
    >>> np.asarray(real).astype(int)
    array([[1, 1, 0],
           [0, 0, 0]])
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.built = True

    def call(self, token_ids, lengths=None):
        """Returns positions [1, T] and real [B, T]."""
        length = ops.shape(token_ids)[1]
        positions = ops.arange(length, dtype="int32")[None]
        if lengths is None:
            return positions, ops.ones_like(token_ids, dtype="bool")
        return positions, masks.real_tokens(lengths, length)
