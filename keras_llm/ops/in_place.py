"""Writing into a large tensor without copying it: asks which backend runs."""

import keras
from keras import ops


def scatter_add(x, indices, updates, compiled=False):
    """Returns `x` with `updates` added at `indices`, in place where that is safe.

    TensorFlow's usual scatter ops always copy `x` on CPU: 70 us per MB and step
    for a key/value cache. `ScatterNdNonAliasingAdd` copies it only while something
    else still needs it. XLA lacks that op and decides about copies by itself.

    Args:
        x: Tensor [...].
        indices: Int32 [M, R], places along the first R axes of `x`.
        updates: Tensor [M, ...], one slice of `x` per place.
        compiled: Whether XLA compiles the caller.

    >>> np.asarray(scatter_add(np.zeros(3), np.array([[1]]), np.array([5.0])))
    array([0., 5., 0.])
    """
    if compiled or keras.config.backend() != "tensorflow":
        return ops.scatter_update(x, indices, updates, reduction="add")
    import tensorflow as tf

    return tf.raw_ops.ScatterNdNonAliasingAdd(input=x, indices=indices, updates=updates)
