"""The objective: signs, floors, and where gradients stop."""

import keras
import numpy as np
import pytest

from keras_llm.ops import elbo

B, Z = 5, 3
RNG = np.random.default_rng(0)
RECONSTRUCTION = RNG.uniform(1, 9, B).astype("float32")
KL = RNG.uniform(0, 2, (B, Z)).astype("float32")
REAL = np.array([1, 1, 0, 1, 0], "float32")


def floored(kl, threshold, scope):
    """The definition in float64, one row after another."""
    mean = [sum(float(row[z]) for row in kl) / len(kl) for z in range(Z)]
    if scope == "total":
        return max(threshold, sum(mean))
    return sum(max(threshold, value) for value in mean)


def slope(function, x):
    if keras.config.backend() == "jax":
        import jax

        return np.asarray(jax.grad(function)(x))
    import tensorflow as tf

    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = function(x)
    return np.asarray(tape.gradient(value, x))


def test_it_is_minus_the_evidence_lower_bound():
    expected = [
        RECONSTRUCTION[b] + 0.3 * sum(KL[b, z] for z in range(Z)) for b in range(B)
    ]
    found = elbo.negative_elbo(RECONSTRUCTION, KL, beta=0.3)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("scope", elbo.SCOPES)
@pytest.mark.parametrize("threshold", [0.0, 0.9, 1.1, 5.0])
def test_free_bits(scope, threshold):
    expected = floored(KL, threshold, scope)
    found = elbo.free_bits(KL, threshold, scope)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("scope", elbo.SCOPES)
def test_rows_of_padding_do_not_count(scope):
    found = elbo.free_bits(KL, 0.9, scope, REAL)
    expected = floored(KL[REAL > 0], 0.9, scope)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    loss = elbo.batch_loss(RECONSTRUCTION, KL, 0.7, 0.9, scope, REAL)
    rows = RECONSTRUCTION[REAL > 0].sum()
    np.testing.assert_allclose(loss, rows + 0.7 * 3 * expected, rtol=1e-6)
    nobody = elbo.batch_loss(RECONSTRUCTION, KL, 0.7, 0.9, scope, 0 * REAL)
    assert float(nobody) == 0


def test_without_a_threshold_it_is_the_sum_over_rows():
    found = elbo.batch_loss(RECONSTRUCTION, KL, beta=0.3)
    expected = np.sum(np.asarray(elbo.negative_elbo(RECONSTRUCTION, KL, beta=0.3)))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_below_the_floor_nothing_pulls():
    kl = np.array([[0.1, 0.5, 3.0], [0.3, 2.5, 1.0]], "float32")  # Means .2, 1.5, 2.
    each = slope(lambda kl: elbo.free_bits(kl, 1.0), kl)
    np.testing.assert_allclose(each, [[0, 0.5, 0.5]] * 2)
    total = slope(lambda kl: elbo.free_bits(kl, 3.6, "total"), kl)
    np.testing.assert_allclose(total, np.full((2, 3), 0.5))  # The sum is 3.7.
    assert not slope(lambda kl: elbo.free_bits(kl, 3.8, "total"), kl).any()


def test_without_a_floor_a_kl_of_zero_is_pulled_like_any_other():
    found = slope(lambda kl: elbo.free_bits(kl, 0.0), np.zeros((2, 3), "float32"))
    np.testing.assert_allclose(found, np.full((2, 3), 0.5))


@pytest.mark.parametrize("bad", [-0.1, float("nan")])
def test_a_negative_threshold_is_refused(bad):
    with pytest.raises(ValueError, match="`threshold`"):
        elbo.free_bits(KL, bad)


def test_an_unknown_scope_is_refused():
    with pytest.raises(ValueError, match="'dimension', 'total'"):
        elbo.free_bits(KL, 1.0, scope="row")
