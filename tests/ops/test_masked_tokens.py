"""Masked positions against loops over rows, in float64."""

import numpy as np
import pytest
from keras import ops

from keras_llm.ops import masked_tokens

B, T, M, V, D = 3, 7, 5, 11, 2
RNG = np.random.default_rng(53)
POSITIONS = np.array(
    [[6, 0, 3, -1, -1], [2, 5, 1, 4, 0], [-1, -1, -1, -1, -1]], "int32"
)
IDS = RNG.integers(0, V, (B, T)).astype("int32")
PLACES = [(b, m, POSITIONS[b, m]) for b in range(B) for m in range(M)]
REAL = [(b, m, t) for b, m, t in PLACES if t >= 0]


def test_take():
    x = RNG.normal(size=(B, T, D)).astype("float32")
    taken = np.asarray(masked_tokens.take(x, POSITIONS))
    assert taken.shape == (B, M, D)
    for b, m, t in PLACES:
        np.testing.assert_array_equal(taken[b, m], x[b, max(t, 0)])


def test_put():
    new = RNG.integers(0, V, (B, M)).astype("int32")
    expected = IDS.copy()
    for b, m, t in REAL:
        expected[b, t] = new[b, m]
    found = masked_tokens.put(IDS, POSITIONS, new)
    np.testing.assert_array_equal(found, expected)
    assert (expected != IDS).any() and found.dtype == ops.convert_to_tensor(IDS).dtype


def test_put_without_any_place():
    none = np.zeros((B, 0), "int32")
    np.testing.assert_array_equal(masked_tokens.put(IDS, none, none), IDS)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_masked_token_loss(smoothing):
    logits = RNG.normal(0, 3, (B, M, V)).astype("float32")
    expected = 0.0
    for b, m, t in REAL:
        z = np.float64(logits[b, m])
        wanted = np.full(V, smoothing / V)
        wanted[IDS[b, t]] += 1 - smoothing
        expected -= wanted @ (z - np.log(np.exp(z).sum()))
    total, count = masked_tokens.masked_token_loss(logits, IDS, POSITIONS, smoothing)
    assert float(total) == pytest.approx(expected, rel=1e-5)
    assert float(count) == len(REAL) == 8


def test_replaced_token_loss():
    logits = RNG.normal(0, 3, (B, T)).astype("float32")
    lengths = np.array([7, 0, 4], "int32")
    corrupted = np.where(RNG.random((B, T)) < 0.4, (IDS + 1) % V, IDS)
    expected, replaced = 0.0, 0
    for b in range(B):
        for t in range(lengths[b]):
            chance = 1 / (1 + np.exp(-np.float64(logits[b, t])))
            is_replaced = corrupted[b, t] != IDS[b, t]
            expected -= np.log(chance if is_replaced else 1 - chance)
            replaced += is_replaced
    total, count = masked_tokens.replaced_token_loss(logits, IDS, corrupted, lengths)
    assert 0 < replaced < 11
    assert float(total) == pytest.approx(expected, rel=1e-5)
    assert float(count) == 11


def test_a_replacement_that_is_the_original_is_none():
    logits = np.full((1, T), -9.0, "float32")  # Sure that nothing was replaced.
    same = masked_tokens.put(IDS[:1], POSITIONS[:1], IDS[:1, POSITIONS[0]])
    total, _ = masked_tokens.replaced_token_loss(logits, IDS[:1], same, [T])
    assert float(total) < 0.01


def test_losses_stay_finite_for_extreme_logits():
    logits = np.array([[1e4, -1e4]], "float32")
    total, _ = masked_tokens.replaced_token_loss(logits, [[1, 2]], [[1, 3]], [2])
    assert float(total) == pytest.approx(2e4)


def test_no_masked_token_costs_nothing():
    logits = RNG.normal(size=(B, M, V)).astype("float32")
    total, count = masked_tokens.masked_token_loss(logits, IDS, 0 * POSITIONS - 1)
    assert (float(total), float(count)) == (0.0, 0.0)
