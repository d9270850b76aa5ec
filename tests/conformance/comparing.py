"""Comparing outputs, and tracing a function on whichever backend runs."""

import functools

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


def quick_training(model):
    """Returns the function from inputs to what a model gives in training, as `quick`.

    It draws anew in each call, as the model itself does.
    """
    if keras.config.backend() != "jax":
        return functools.partial(model, training=True)
    variables = model.non_trainable_variables

    @quick
    def call(values, inputs):
        weights = model.trainable_variables
        return model.stateless_call(weights, values, inputs, training=True)

    def run(inputs):
        outputs, values = call([variable.value for variable in variables], inputs)
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
        return outputs

    return run


@functools.lru_cache(maxsize=8)
def quick_decoding(decoder, capacity):
    """Returns `prefill` for so many slots and `step`, quick for all who ask."""
    prefill = quick(lambda ids, lengths: decoder.prefill(ids, lengths, capacity))
    return prefill, quick(decoder.step)


def assert_same(one, other, **tolerance):
    for a, b in zip(arrays(one), arrays(other), strict=True):
        np.testing.assert_allclose(a, b, **tolerance)
