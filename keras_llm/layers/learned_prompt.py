"""Vectors that a table of tokens learns beside its own: a prompt."""

import contextlib

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_llm")
class LearnedPrompt(keras.layers.Layer):
    """Puts learnt vectors where ids lie beyond a vocabulary, once it is started.

    y[t] = vectors[place[t]] where place[t] = id[t] - V is not negative, else x[t].

    Every `TokenEmbedding` has one. It holds no weight, and is not called, until
    `start`.

    Call arguments:
        places: Int tensor [...] of values below P.
        x: Float tensor [..., D], the table's own vectors.

    Returns:
        Tensor [..., D] in the dtype of x.

    Source: Lester, Al-Rfou and Constant 2021, https://arxiv.org/abs/2104.08691.

    >>> prompt = LearnedPrompt()
    >>> prompt.start(np.ones((2, 3), "float32"))
    >>> np.asarray(prompt(np.array([-4, 1]), np.zeros((2, 3), "float32")))
    array([[0., 0., 0.],
           [1., 1., 1.]], dtype=float32)
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.started = False

    def start(self, vectors, path=""):
        """Makes the weight `vectors` [P, D].

        Args:
            vectors: Float array or tensor [P, D], its first values.
            path: Of the table, which the weight's path begins with.

        Raises:
            ValueError: It was started before.
        """
        if self.started:
            raise ValueError(
                "A table has one prompt at a time. Received: a second one for "
                f"{path or self.name}. Load the model anew."
            )
        self.started = True
        with contextlib.ExitStack() as scopes:
            for name in filter(None, path.split("/")):
                scopes.enter_context(keras.name_scope(name))
            self.build(tuple(vectors.shape))
        self.vectors.assign(vectors)

    def build(self, shape):
        """Makes the weight of this shape, (P, D)."""
        self.vectors = self.add_weight(name="vectors", shape=shape, initializer="zeros")

    def call(self, places, x):
        """Returns [..., D]."""
        own = ops.take(self.vectors, ops.maximum(places, 0), axis=0)
        return ops.where(ops.expand_dims(places, -1) < 0, x, ops.cast(own, x.dtype))
