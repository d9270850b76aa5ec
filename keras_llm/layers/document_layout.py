"""Positions and masks of rows that hold several documents."""

import keras
from keras import ops

from keras_llm.ops import masks


@keras.saving.register_keras_serializable(package="keras_llm")
class DocumentLayout(keras.layers.Layer):
    """Finds where each document of a packed row begins.

    A separator opens a document: positions count from it, and no token attends
    across it. What stands before the first separator is a document too.

    Args:
        separator_id: The token id that opens a document; None takes every row for
            one document.
        window: Tokens in reach of each token; None for all of its document.

    Call arguments:
        token_ids: Int tensor [B, T].

    Returns:
        positions: int32 [B, T], counted from the document's start.
        bias: float32 [B, 1, T, T] for attention: causal, within the document and
            the window.
        Without a separator both have a leading dimension of 1 instead of B.

    >>> positions, bias = DocumentLayout(0)(np.array([[5, 6, 0, 7]]))
    >>> np.asarray(positions)
    array([[0, 1, 0, 1]], dtype=int32)
    """

    def __init__(self, separator_id, window=None, **kwargs):
        super().__init__(**kwargs)
        self.separator_id = separator_id
        self.window = window
        self.built = True

    def call(self, token_ids):
        """Returns positions [B, T] and bias [B, 1, T, T]."""
        length = ops.shape(token_ids)[1]
        allowed = masks.causal(length)
        if self.window is not None:
            allowed = masks.combine(allowed, masks.sliding_window(length, self.window))
        positions = ops.arange(length, dtype="int32")[None]
        if self.separator_id is not None:
            segments = masks.segments(token_ids, self.separator_id)
            allowed = masks.combine(allowed, masks.same_segment(segments))
            positions = positions - masks.segment_starts(segments)
        return positions, masks.as_bias(allowed)

    def spared(self, bias):
        """Returns the bias for attention, or None where its causal mask is enough.

        On JAX, attention without a bias runs in the backend's fused kernel. On
        TensorFlow one bias, made once, serves all blocks.
        """
        plain = self.separator_id is None and self.window is None
        return None if plain and keras.config.backend() == "jax" else bias

    def get_config(self):
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "separator_id": self.separator_id,
            "window": self.window,
        }
