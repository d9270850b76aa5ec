"""Cutting and reshaping in few nodes of a TensorFlow graph.

`keras.ops` works out there what is known beforehand: a split into unlike parts takes 24
nodes, each size that it looks up four. A model of thirty layers is traced several times
for an export: that is a quarter of the graph that is written, and loaded.
"""

import itertools
from collections.abc import Sequence

import keras
from keras import ops


def split(x, sizes: Sequence[int], axis: int):
    """Returns the parts of a tensor that have these sizes along an axis.

    >>> [part.shape[0] for part in split(np.ones((7, 3)), [2, 4, 1], axis=0)]
    [2, 4, 1]
    """
    if keras.config.backend() != "tensorflow":
        return ops.split(x, list(itertools.accumulate(sizes[:-1])), axis=axis)
    import tensorflow as tf

    return tf.split(x, sizes, axis=axis)


def outer_sizes(x) -> tuple:
    """Returns the sizes of all axes but the last, for a reshape: -1 for one unknown.

    >>> outer_sizes(np.ones((5, 2, 3)))
    (5, 2)
    """
    sizes = tuple(x.shape[:-1])
    if sizes.count(None) <= 1:
        return tuple(-1 if size is None else size for size in sizes)
    return tuple(ops.shape(x)[:-1])
