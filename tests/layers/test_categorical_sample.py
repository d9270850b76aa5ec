"""Drawn ids follow the softmax; without training they are the likeliest."""

import numpy as np
import pytest

from keras_llm.layers import CategoricalSample

RNG = np.random.default_rng(67)
LOGITS = RNG.normal(size=(2, 3, 11)).astype("float32")


def test_without_training_the_likeliest():
    ids = CategoricalSample()(LOGITS)
    np.testing.assert_array_equal(ids, LOGITS.argmax(-1))


def test_frequencies_are_the_softmax():
    odds = np.array([0.5, 0.0, 0.1, 0.25, 0.15])
    logits = np.log(np.maximum(odds, 1e-30)).astype("float32") + 7
    drawn = CategoricalSample(seed=5)(
        np.broadcast_to(logits, (3, 7_000, 5)), training=True
    )
    assert tuple(drawn.shape) == (3, 7_000)
    share = np.bincount(np.ravel(drawn), minlength=5) / 21_000
    # Four standard deviations of the commonest one.
    assert np.abs(share - odds).max() < 4 * np.sqrt(0.25 / 21_000)
    assert share[1] == 0


def test_each_call_and_each_place_draws_anew():
    layer = CategoricalSample(seed=5)
    flat = np.zeros((2, 3, 10_007), "float32")
    first, second = (np.asarray(layer(flat, training=True)) for _ in range(2))
    assert len(set(np.ravel([first, second]))) == 12
    again = CategoricalSample(seed=5)(flat, training=True)
    np.testing.assert_array_equal(again, first)


def test_close_logits_are_not_rounded_together():
    logits = np.array([[256.0, 257.0]], "float32")  # One number in bfloat16.
    ids = CategoricalSample(dtype="mixed_bfloat16")(logits)
    assert int(ids[0]) == 1


@pytest.mark.parametrize("training", [False, True])
def test_ids_are_int32(training):
    assert "int32" in str(CategoricalSample()(LOGITS, training=training).dtype)
