"""Gradient norms against Transformers on torch: see `tests/models/test_golden.py`."""

import pytest
import tensorflow as tf

from tests.models.test_golden import NAMES, load, real


@pytest.mark.parametrize("name", NAMES)
def test_gradient_norm(name, tmp_path):
    model, answers = load(name, tmp_path)
    ids, weights = answers["token_ids"], real(answers)[:, 1:].astype("float32")
    values = [weight.value for weight in model.trainable_weights]
    with tf.GradientTape() as tape:
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
            ids[:, 1:], model(ids, training=True)[:, :-1]
        )
        loss = tf.reduce_sum(weights * losses) / weights.sum()
    gradients = [tf.convert_to_tensor(g) for g in tape.gradient(loss, values)]
    norm = float(tf.linalg.global_norm(gradients))
    assert float(loss) == pytest.approx(float(answers["loss"]), abs=1e-5)
    assert norm == pytest.approx(float(answers["gradient_norm"]), rel=1e-4)
