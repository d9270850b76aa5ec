"""Comparing outputs, and tracing a function on whichever backend runs."""

import keras
import numpy as np
from keras import ops


def arrays(output):
    """Returns a layer's outputs as a list of float32 or int arrays."""
    flat = keras.tree.flatten(output)
    wide = [ops.cast(y, "float32") if "float" in str(y.dtype) else y for y in flat]
    return [np.asarray(ops.convert_to_numpy(y)) for y in wide]


def graph(function):
    """Returns the function as this backend traces it."""
    if keras.config.backend() == "jax":
        import jax

        return jax.jit(function)
    import tensorflow as tf

    return tf.function(function, autograph=False)


def quick(function):
    """Returns the function as it answers soonest: JAX compiles eager ops one by one."""
    return graph(function) if keras.config.backend() == "jax" else function


def assert_same(one, other, **tolerance):
    for a, b in zip(arrays(one), arrays(other), strict=True):
        np.testing.assert_allclose(a, b, **tolerance)
