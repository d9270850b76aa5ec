"""Kernels re-laid for decoding, for as long as a model is served or exported."""

import contextlib
from collections.abc import Iterator

import keras

from keras_llm.layers.linear import Linear


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
    linears = _linears(model, set())
    replaced = {id(linear.kernel) for linear in linears}
    try:
        for linear in linears:
            linear.pack()
        kept = [weight for weight in model.weights if id(weight) not in replaced]
        yield kept + [linear.packed.variable for linear in linears]
    finally:
        for linear in linears:
            linear.unpack()


def _linears(layer, seen: set[int]) -> list[Linear]:
    """Returns every built `Linear` below a layer, in the order of its attributes."""
    if id(layer) in seen:
        return []
    seen.add(id(layer))
    if isinstance(layer, Linear):
        return [layer] if layer.built else []
    found = []
    below = layer.layers if isinstance(layer, keras.Model) else vars(layer).values()
    for value in below:
        for item in value if isinstance(value, (list, tuple)) else (value,):
            if isinstance(item, keras.layers.Layer):
                found += _linears(item, seen)
    return found
