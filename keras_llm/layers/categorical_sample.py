"""Ids drawn from a model's own distribution, inside the model."""

import keras
from keras import ops

from keras_llm.layers.dropout import ReplicaSeed
from keras_llm.ops import sampling


@keras.saving.register_keras_serializable(package="keras_llm")
class CategoricalSample(keras.layers.Layer):
    """Draws an id from softmax(logits) while training; else takes the likeliest.

    Drawn by inverting the distribution function, with one random number an id. Each
    replica draws its own. No gradient passes through.

    Args:
        seed: Int; None draws one from Keras' global seed.

    Call arguments:
        logits: Float tensor [..., V].
        training: Whether to draw.

    Returns:
        Int32 tensor [...].

    >>> logits = np.log([[0.5, 0.5, 1e-9], [1e-9, 1e-9, 1.0]])
    >>> np.asarray(CategoricalSample(seed=1)(logits, training=False))
    array([0, 2], dtype=int32)
    """

    def __init__(self, seed=None, **kwargs):
        # Two logits that are close must not become one by rounding.
        super().__init__(autocast=False, **kwargs)
        self.seed = seed
        self.seed_generator = ReplicaSeed(seed)
        self.built = True

    def call(self, logits, training=False):
        """Returns ids [...]."""
        logits = ops.cast(ops.stop_gradient(logits), "float32")
        if not training:
            return sampling.greedy(logits)
        shape = ops.shape(logits)
        flat = ops.reshape(logits, (-1, shape[-1]))
        uniform = keras.random.uniform(ops.shape(flat)[:1], seed=self.seed_generator)
        lowest = ops.min(flat, axis=-1)
        return ops.reshape(sampling.draw(flat, lowest, uniform), shape[:-1])

    def get_config(self):
        """Returns the constructor's arguments."""
        return {**super().get_config(), "seed": self.seed}
