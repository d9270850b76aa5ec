"""Kernels re-laid for decoding, for as long as a model is served or exported."""

import contextlib
from collections.abc import Iterator

import keras

from keras_llm.layers.linear import Linear
from keras_llm.layers.walking import sublayers


@contextlib.contextmanager
def packed_kernels(model: keras.Model) -> Iterator[list]:
    """Lets every `Linear` of a model multiply by a packed copy of its kernel.

    The results are the same but for the order of summation. A SavedModel traced
    inside the block holds the copies and no longer needs the kernels.

    Args:
        model: A built model; it is as before when the block ends.

    Yields:
        The variables that the model now computes with.

    >>> model = keras.Sequential([keras.Input((3,)), Linear(130)])
    >>> with packed_kernels(model) as weights:
    ...     [tuple(weight.shape) for weight in weights]
    [(130,), (3, 3, 64)]
    """
    found = (layer for layer in sublayers(model) if isinstance(layer, Linear))
    linears = [linear for linear in found if linear.built]
    replaced = {id(linear.kernel) for linear in linears}
    try:
        for linear in linears:
            linear.pack()
        kept = [weight for weight in model.weights if id(weight) not in replaced]
        yield kept + [linear.packed.variable for linear in linears]
    finally:
        for linear in linears:
            linear.unpack()
