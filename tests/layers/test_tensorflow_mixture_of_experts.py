"""A mixture of experts over rows whose length only the graph knows."""

import numpy as np
import tensorflow as tf

from tests.layers.test_mixture_of_experts import D, X, make


def test_lengths_known_only_in_the_graph():
    layer = make(capacity_factor=0.65)
    spec = tf.TensorSpec((None, None, D), tf.float32)
    run = tf.function(
        lambda x: layer(x, training=True), input_signature=[spec], autograph=False
    )
    np.testing.assert_allclose(run(X), layer(X, training=True), atol=1e-5)
    np.testing.assert_allclose(run(X[:, :3]), layer(X[:, :3], training=True), atol=1e-5)
