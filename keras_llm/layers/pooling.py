"""One vector a row, made of its real tokens alone."""

import keras
from keras import ops

from keras_llm.core import checks
from keras_llm.ops import masks

POOLINGS = ("first", "mean", "max", "attention")


@keras.saving.register_keras_serializable(package="keras_llm")
class Pooling(keras.layers.Layer):
    """Reduces a row of vectors to one, over its real tokens.

    first:     y = x[t], t the first real token
    mean:      y = mean over t of x[t]
    max:       y[d] = max over t of x[t, d]
    attention: y = sum over t of a[t] x[t], a = softmax(x @ query), computed in
               float32; `query` [D] is learned and starts at 0, which is the mean

    Args:
        kind: "first", "mean", "max" or "attention".

    Call arguments:
        x: Float tensor [B, T, D].
        mask: Bool [B, T], True for real tokens; None where all are.

    Returns:
        Tensor [B, D] in the layer's compute dtype: zeros, with gradients of zero,
        for a row without a real token.

    Raises:
        ValueError: `kind` is unknown.

    Source: Devlin et al. 2019, section 3 (first), https://arxiv.org/abs/1810.04805;
    Reimers and Gurevych 2019, section 3 (mean, max),
    https://arxiv.org/abs/1908.10084; Yang et al. 2016, eq. 6 and 7 (attention, here
    without their inner layer), https://aclanthology.org/N16-1174.

    >>> x, real = np.array([[[1.0], [5.0], [9.0]]]), np.array([[True, True, False]])
    >>> [float(Pooling(kind)(x, mask=real)[0, 0]) for kind in ("first", "mean", "max")]
    [1.0, 3.0, 5.0]
    """

    def __init__(self, kind="mean", **kwargs):
        super().__init__(**kwargs)
        checks.check_choice("kind", kind, POOLINGS)
        self.kind = kind
        self.supports_masking = True

    def build(self, x_shape):
        """Makes `query` [D] for "attention"."""
        if self.kind == "attention":
            self.query = self.add_weight(
                name="query",
                shape=(x_shape[-1],),
                initializer="zeros",
                autocast=False,
            )

    def call(self, x, mask=None):
        """Returns [B, D]."""
        wide = keras.backend.result_type(x.dtype, "float32")
        x = ops.cast(x, wide)
        if mask is None:
            mask = ops.ones_like(x[..., 0], dtype="bool")
        mask = ops.cast(mask, "bool")
        if self.kind == "max":
            lowest = ops.where(mask[..., None], x, masks.MASKED)
            y = ops.max(lowest, axis=1)
            y = ops.where(ops.any(mask, axis=1)[:, None], y, 0.0)
        else:
            # A weight of 0 would let an infinity at padding through, as NaN.
            x = ops.where(mask[..., None], x, 0.0)
            y = ops.sum(self._shares(x, mask, wide)[..., None] * x, axis=1)
        return ops.cast(y, self.compute_dtype)

    def _shares(self, x, mask, wide):
        """Returns each token's share in the sum, [B, T]."""
        real = ops.cast(mask, wide)
        if self.kind == "first":
            return ops.where(ops.cumsum(real, axis=1) == 1, real, 0.0)
        if self.kind == "mean":
            return real / ops.maximum(ops.sum(real, axis=1, keepdims=True), 1.0)
        scores = ops.sum(x * ops.cast(self.query, wide), axis=-1)
        return real * ops.softmax(ops.where(mask, scores, masks.MASKED), axis=-1)

    def compute_mask(self, x, previous_mask=None):
        """Returns None: there is no time axis left."""
        return None

    def get_config(self):
        """Returns the constructor's arguments."""
        return {**super().get_config(), "kind": self.kind}
