"""T5 of versions 1.1 and 1.0 against Transformers on torch: stored answers.

`tests/golden/make_t5_golden.py` made them; the tests need neither library.
"""

import pathlib

import keras
import numpy as np
import pytest
from keras import ops

from keras_llm import models
from keras_llm.models import t5
from tests.conformance.comparing import quick

FOLDER = pathlib.Path(__file__).parents[2] / "testdata" / "golden"
V1_1 = models.T5Config(
    vocab_size=37,
    width=20,
    num_layers=2,
    num_decoder_layers=3,
    num_heads=5,
    head_size=6,
    feed_forward_width=31,
    relative_buckets=10,
    relative_max_distance=13,
    epsilon=1e-5,
)
CONFIGS = {"t5": V1_1, "t5_tied": V1_1.replace(activation="relu", tied=True)}


@pytest.fixture(scope="module", params=CONFIGS)
def case(request):
    """Returns a model with the reference's weights, and the answers."""
    model = models.build(CONFIGS[request.param])
    models.load_weights(model, FOLDER / f"{request.param}.safetensors")
    with np.load(FOLDER / f"{request.param}.npz") as answers:
        return model, dict(answers)


def inputs(answers):
    return {k: answers[k] for k in ("source_ids", "source_lengths", "token_ids")}


def real(answers, ids="token_ids", lengths="target_lengths"):
    return np.arange(answers[ids].shape[1])[None] < answers[lengths][:, None]


def test_encoder(case):
    model, answers = case
    memory = t5.encoder(model)(
        {k: answers[k] for k in ("source_ids", "source_lengths")}
    )
    where = real(answers, "source_ids", "source_lengths")
    np.testing.assert_allclose(
        np.asarray(memory)[where], answers["memory"][where], atol=1e-4
    )


@pytest.mark.parametrize(
    ("prefix", "last", "stored", "ids", "lengths"),
    [
        ("encoder_", 1, "source_hidden", "source_ids", "source_lengths"),
        ("", 2, "hidden", "token_ids", "target_lengths"),
    ],
)
def test_hidden_states_of_every_layer(case, prefix, last, stored, ids, lengths):
    model, answers = case
    blocks = [f"block_{i}" for i in range(last)]
    names = [f"{prefix}{x}" for x in ("embedding_dropout", *blocks, "final_norm")]
    outputs = [model.get_layer(name).output for name in names]
    states = quick(keras.Model(model.input, outputs))(inputs(answers))
    assert len(states) == len(answers[stored]) == last + 2
    where = real(answers, ids, lengths)
    for ours, theirs in zip(states, answers[stored], strict=True):
        np.testing.assert_allclose(np.asarray(ours)[where], theirs[where], atol=1e-4)


def test_logits(case):
    model, answers = case
    logits, where = np.asarray(quick(model)(inputs(answers))), real(answers)
    # Up to 10; on JAX the suite lets XLA leave its sums in another order.
    close = 2e-4 if keras.config.backend() == "jax" else 1e-4
    np.testing.assert_allclose(logits[where], answers["logits"][where], atol=close)


def loss(logits, answers):
    log_probs = ops.log_softmax(logits)
    targets = answers["targets"][:, :, None]
    chosen = ops.take_along_axis(log_probs, targets, axis=-1)[..., 0]
    weight = real(answers).astype("float32")
    return -ops.sum(chosen * weight) / weight.sum()


def loss_and_gradients(model, answers):
    if keras.config.backend() == "jax":
        import jax

        def of(values):
            return loss(model.stateless_call(values, [], inputs(answers))[0], answers)

        return jax.jit(jax.value_and_grad(of))(
            [v.value for v in model.trainable_variables]
        )
    import tensorflow as tf

    with tf.GradientTape() as tape:
        value = loss(model(inputs(answers)), answers)
    gradients = tape.gradient(value, [v.value for v in model.trainable_variables])
    return value, [tf.convert_to_tensor(gradient) for gradient in gradients]


def test_loss_and_gradient(case):
    model, answers = case
    value, gradients = loss_and_gradients(model, answers)
    assert float(value) == pytest.approx(float(answers["loss"]), abs=1e-5)
    norm = sum((np.asarray(g, "float64") ** 2).sum() for g in gradients) ** 0.5
    assert norm == pytest.approx(float(answers["gradient_norm"]), rel=1e-4)


def test_greedy_text_from_the_cache(case):
    model, answers = case
    decoder, expected = models.decoder(model), answers["greedy"]
    prefill = quick(lambda ids, n: decoder.prefill(ids, n, expected.shape[1]))
    step = quick(decoder.step)
    logits, state = prefill(answers["source_ids"], answers["source_lengths"])
    for t in range(expected.shape[1]):
        token = np.asarray(ops.argmax(logits, axis=-1))
        np.testing.assert_array_equal(token, expected[:, t])
        logits, state = step(token.astype("int32"), state)
