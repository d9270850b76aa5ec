"""Graphs stay small: what `keras.ops` would spell out in many nodes."""

import numpy as np
import tensorflow as tf
from keras import ops

from keras_llm.ops import attention, few_nodes, products


def nodes(function, *shapes):
    """Returns how many nodes a function takes, its inputs and outputs left aside."""
    specs = [tf.TensorSpec(shape, tf.float32) for shape in shapes]
    traced = tf.function(function, autograph=False).get_concrete_function(*specs)
    kinds = [operation.type for operation in traced.graph.get_operations()]
    return len([kind for kind in kinds if kind not in ("Placeholder", "Identity")])


def test_parts_are_those_of_keras():
    x = np.arange(2 * 9 * 3).reshape(2, 9, 3)
    found = few_nodes.split(x, [2, 4, 3], axis=1)
    for part, expected in zip(found, ops.split(x, [2, 6], axis=1), strict=True):
        np.testing.assert_array_equal(part, expected)


def test_a_split_is_three_nodes():
    assert nodes(lambda x: few_nodes.split(x, [2, 7], 1), [None, 9, None]) == 3
    assert nodes(lambda x: ops.split(x, [2], 1), [None, 9, None]) > 10


def test_one_unknown_size_is_not_looked_up():
    packed = products.pack(np.ones((3, 128), "float32"))

    def product(x):
        return products.packed_product(x, packed, 128)

    assert nodes(product, [None, 3]) == nodes(product, [5, 3])
    assert nodes(product, [None, None, 3]) > nodes(product, [None, 7, 3])


def test_attention_looks_its_sizes_up_once():
    def shared(query, key):
        return attention.attend(query, key, key)

    own = nodes(shared, [None, 6, None, 4], [None, 6, None, 4])
    assert nodes(shared, [None, 6, None, 4], [None, 2, None, 4]) < own + 50
