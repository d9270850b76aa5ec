"""Caches against assignment to a NumPy array, row by row."""

import numpy as np
import pytest

from keras_llm.ops import cache

RNG = np.random.default_rng(5)
B, K, T, C, H = 2, 3, 5, 11, 7


def test_fill_keeps_real_tokens_and_zeros_the_rest():
    keys = RNG.normal(size=(B, K, T, H)).astype("float32")
    lengths = np.array([5, 2])
    real = np.arange(T)[None] < lengths[:, None]
    expected = np.zeros((B, K, C, H), "float32")
    for b, n in enumerate(lengths):
        expected[b, :, :n] = keys[b, :, :n]
    np.testing.assert_array_equal(cache.fill(keys, C, real), expected)


@pytest.mark.parametrize("compiled", [False, True])
def test_every_row_writes_its_own_slot(compiled):
    before = RNG.normal(size=(B, K, C, H)).astype("float32")
    position = np.array([4, 9], "int32")
    for b in range(B):
        before[b, :, position[b]] = 0
    new = RNG.normal(size=(B, K, H)).astype("float32")
    expected = before.copy()
    for b in range(B):
        expected[b, :, position[b]] = new[b]
    after = cache.write(before, cache.slots(position, K), new, compiled)
    np.testing.assert_array_equal(after, expected)
    assert (before[0, :, position[0]] == 0).all(), "the old cache must stay as it was"
