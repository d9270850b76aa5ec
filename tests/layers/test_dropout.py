"""Dropout: its share, its expectation, and its seed."""

import keras
import numpy as np
import pytest

from keras_llm.layers import Dropout

X = np.ones((100, 101), "float32")


def test_share_and_scale():
    y = np.asarray(Dropout(0.3, seed=1)(X, training=True))
    assert (y == 0).mean() == pytest.approx(0.3, abs=0.02)
    np.testing.assert_allclose(y[y > 0], 1 / 0.7, rtol=1e-6)


def test_same_seed_same_run():
    first, second, other = (Dropout(0.5, seed=seed) for seed in (4, 4, 5))
    draws = [
        [np.asarray(d(X, training=True)) for _ in range(2)] for d in (first, second)
    ]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert (draws[0][0] != draws[0][1]).any()
    assert (draws[0][0] != np.asarray(other(X, training=True))).any()


def test_without_a_seed_the_global_one_decides():
    draws = []
    for seed in (1, 1, 2):
        keras.utils.set_random_seed(seed)
        draws.append(np.asarray(Dropout(0.5)(X, training=True)))
    np.testing.assert_array_equal(draws[0], draws[1])
    assert (draws[0] != draws[2]).any()


def test_off_unless_training():
    layer = Dropout(0.9)
    np.testing.assert_array_equal(layer(X), X)
    np.testing.assert_array_equal(layer(X, training=False), X)
    np.testing.assert_array_equal(Dropout(0.0)(X, training=True), X)


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_rate_is_checked(rate):
    with pytest.raises(ValueError, match="`rate`"):
        Dropout(rate)
