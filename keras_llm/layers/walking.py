"""The layers within a layer: Keras has no public walk over them."""

from collections.abc import Iterator

import keras


def sublayers(layer: keras.layers.Layer) -> Iterator[keras.layers.Layer]:
    """Yields a layer and every layer below it, each once, outermost first.

    Below a model are its `layers`; below any other layer, the layers among its
    attributes, and in lists, tuples and dicts there. What a layer makes in `build`
    is found once it is built.

    Args:
        layer: A layer or a model.

    Yields:
        Layers, in the order of the attributes that hold them.

    >>> model = keras.Sequential([keras.layers.Dense(3), keras.layers.ReLU()])
    >>> [type(layer).__name__ for layer in sublayers(model)]
    ['Sequential', 'Dense', 'ReLU']
    """
    seen = set()
    waiting = [layer]
    while waiting:
        found = waiting.pop()
        if id(found) in seen:
            continue
        seen.add(id(found))
        yield found
        waiting += reversed(list(_held(_below(found))))


def _below(layer):
    """Returns what may hold the next layers below."""
    return layer.layers if isinstance(layer, keras.Model) else vars(layer)


def _held(value):
    """Yields the layers in a value and in the containers within it."""
    if isinstance(value, keras.layers.Layer):
        yield value
    elif isinstance(value, (list, tuple, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _held(item)
