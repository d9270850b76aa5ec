"""Gradient norms against Transformers: see `tests/models/test_bert_golden.py`."""

import pytest
import tensorflow as tf

from keras_llm.ops import masked_tokens
from tests.models.test_bert_golden import BERT, ELECTRA, built, electra_rows, rows_of


def gradient_norm(model, loss_of):
    """Returns the loss and the norm of its gradient by every weight."""
    values = [weight.value for weight in model.trainable_weights]
    with tf.GradientTape() as tape:
        loss = loss_of()
    gradients = [tf.convert_to_tensor(g) for g in tape.gradient(loss, values)]
    return float(loss), float(tf.linalg.global_norm(gradients))


def assert_agree(found, answers):
    loss, norm = found
    assert loss == pytest.approx(float(answers["loss"]), rel=1e-6, abs=1e-5)
    assert norm == pytest.approx(float(answers["gradient_norm"]), rel=1e-4)


def test_bert():
    model, answers = built(BERT.replace(dropout=0.0))

    def loss():
        logits = model(rows_of(answers, "masked_ids"), training=True)
        places = answers["masked_positions"]
        total, count = masked_tokens.masked_token_loss(
            masked_tokens.take(logits, places), answers["token_ids"], places
        )
        return total / count

    assert_agree(gradient_norm(model, loss), answers)


def test_electra():
    # Not in training, where the generator's tokens are drawn.
    model, answers = built(ELECTRA)

    def loss():
        out = model(electra_rows(answers))
        generator, masked = masked_tokens.masked_token_loss(
            out["generator_logits"], answers["token_ids"], answers["masked_positions"]
        )
        discriminator, tokens = masked_tokens.replaced_token_loss(
            out["discriminator_logits"],
            answers["token_ids"],
            out["corrupted_ids"],
            answers["lengths"],
        )
        return generator / masked + 50 * discriminator / tokens

    assert_agree(gradient_norm(model, loss), answers)
