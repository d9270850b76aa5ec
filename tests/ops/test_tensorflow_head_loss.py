"""`head_loss`, whose gradient is TensorFlow's: not part of the run on JAX."""

import numpy as np
import pytest
import tensorflow as tf

from keras_llm.ops import losses

N, D, V = 12, 5, 11


@pytest.fixture
def inputs():
    rng = np.random.default_rng(0)
    return {
        "hidden": rng.normal(size=(N, D)).astype("float32"),
        "table": rng.normal(size=(V, D)).astype("float32"),
        "targets": rng.integers(0, V, N).astype("int32"),
        "weights": rng.uniform(0, 2, N).astype("float32") * (np.arange(N) % 3 > 0),
    }


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("chunk", [5, 12])
@pytest.mark.parametrize("compiled", [False, True])
def test_head_loss_equals_the_plain_one_in_value_and_gradients(
    inputs, smoothing, tied, chunk, compiled
):
    hidden = tf.constant(inputs["hidden"])
    kernel = tf.constant(inputs["table"] if tied else inputs["table"].T)
    weights = tf.constant(inputs["weights"])
    fuse = (lambda f: tf.function(f, jit_compile=True)) if compiled else None
    with tf.GradientTape(persistent=True) as tape:
        tape.watch((hidden, kernel))
        logits = hidden @ (tf.transpose(kernel) if tied else kernel)
        each = losses.token_losses(logits, inputs["targets"], smoothing)
        plain = 3.0 * tf.reduce_sum(weights * each)
        chunked = 3.0 * losses.head_loss(
            hidden, kernel, inputs["targets"], weights, tied, smoothing, chunk, fuse
        )
    np.testing.assert_allclose(chunked, plain, rtol=1e-5)
    for wanted, found in zip(
        tape.gradient(plain, (hidden, kernel)),
        tape.gradient(chunked, (hidden, kernel)),
        strict=True,
    ):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_no_op_holds_the_logits_of_the_whole_batch(inputs):
    def loss(hidden, kernel):
        with tf.GradientTape() as tape:
            tape.watch((hidden, kernel))
            value = losses.head_loss(
                hidden, kernel, inputs["targets"], inputs["weights"], chunk=3
            )
        return tape.gradient(value, (hidden, kernel))

    graph = (
        tf.function(loss)
        .get_concrete_function(tf.TensorSpec((N, D)), tf.TensorSpec((V, D)))
        .graph
    )
    sizes = [
        out.shape.num_elements() or 0
        for op in graph.get_operations()
        for out in op.outputs
    ]
    assert max(sizes) < N * V


def test_bfloat16_follows_float32_within_its_precision(inputs):
    found = losses.head_loss(
        tf.cast(inputs["hidden"], "bfloat16"),
        inputs["table"],
        inputs["targets"],
        inputs["weights"],
    )
    exact = losses.head_loss(
        inputs["hidden"], inputs["table"], inputs["targets"], inputs["weights"]
    )
    assert found.dtype == tf.float32
    np.testing.assert_allclose(found, exact, rtol=0.02)
