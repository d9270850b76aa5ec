"""First values of weights, where Keras' own initializers do not say them."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_llm")
class ScaledColumns(keras.initializers.Initializer):
    """Draws from another initializer and multiplies the first columns by a factor.

    Args:
        initializer: Draws the whole matrix.
        columns: How many columns are multiplied.
        factor: By what.

    >>> np.asarray(ScaledColumns("ones", 1, 0.5)((2, 3)))
    array([[0.5, 1. , 1. ],
           [0.5, 1. , 1. ]], dtype=float32)
    """

    def __init__(self, initializer, columns, factor):
        self.initializer = keras.initializers.get(initializer)
        self.columns = columns
        self.factor = factor

    def __call__(self, shape, dtype=None):
        """Returns the first values [D, E]."""
        values = self.initializer(shape, dtype)
        is_scaled = ops.arange(shape[-1]) < self.columns
        return ops.where(is_scaled, values * self.factor, values)

    def get_config(self):
        """Returns the constructor's arguments."""
        return {
            "initializer": keras.initializers.serialize(self.initializer),
            "columns": self.columns,
            "factor": self.factor,
        }
