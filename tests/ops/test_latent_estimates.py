"""Estimates: against a linear Gaussian model, whose every quantity is known.

z ~ N(0, 1), x | z ~ N(a z, s^2): then x ~ N(0, a^2 + s^2), the posterior is Gaussian
and I(x; z) = log(1 + a^2 / s^2) / 2.
"""

import numpy as np
import pytest

from keras_llm.ops import latent_estimates

A, S = 1.5, 0.5
VARIANCE = A**2 + S**2


def log_normal(x, mean, variance):
    return -0.5 * ((x - mean) ** 2 / variance + np.log(2 * np.pi * variance))


@pytest.fixture(scope="module")
def x():
    return np.random.default_rng(0).normal(0, np.sqrt(VARIANCE), 1_999)


def posterior(x):
    return A * x / VARIANCE, np.full_like(x, S**2 / VARIANCE)


def log_weights(x, mean, variance, samples):
    """As the package computes them, for the proposal N(mean, variance)."""
    noise = np.random.default_rng(1).normal(size=(samples, len(x)))
    z = mean + np.sqrt(variance) * noise
    found = latent_estimates.log_importance_weights(
        log_normal(x, A * z, S**2).astype("float32"),
        z[..., None].astype("float32"),
        mean[:, None].astype("float32"),
        np.log(variance)[:, None].astype("float32"),
    )
    expected = log_normal(x, A * z, S**2) + log_normal(z, 0, 1)
    expected -= log_normal(z, mean, variance)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
    return np.asarray(found)


def test_under_the_true_posterior_one_sample_is_exact(x):
    weights = log_weights(x, *posterior(x), samples=1)
    found = latent_estimates.importance_weighted_nll(weights)
    np.testing.assert_allclose(found, -log_normal(x, 0, VARIANCE), atol=1e-3)


def test_from_the_prior_many_samples_converge_from_above(x):
    exact = -log_normal(x, 0, VARIANCE).mean()
    zeros, ones = np.zeros_like(x), np.ones_like(x)
    gaps = []
    for samples in (1, 11, 1_009):
        weights = log_weights(x, zeros, ones, samples)
        nll = latent_estimates.importance_weighted_nll(weights)
        gaps.append(float(np.mean(np.asarray(nll))) - exact)
    assert gaps[0] > gaps[1] > gaps[2] > -0.01
    assert gaps[0] > 1 and gaps[2] < 0.02


def test_weights_of_any_size_stay_finite():
    weights = np.array([[-2_000.0, 900.0], [-2_001.0, 901.0]], "float32")
    found = latent_estimates.importance_weighted_nll(weights)
    mean = np.log((1 + np.exp(-1)) / 2)
    np.testing.assert_allclose(found, [2_000 - mean, -901 - mean], rtol=1e-6)


def test_mutual_information_is_that_of_the_channel(x):
    mean, variance = posterior(x)
    noise = np.random.default_rng(2).normal(size=x.shape)
    z = mean + np.sqrt(variance) * noise
    found = latent_estimates.mutual_information(
        *(value[:, None].astype("float32") for value in (z, mean, np.log(variance)))
    )
    expected = 0.5 * np.log(1 + A**2 / S**2)  # 1.15 nats.
    assert float(found) == pytest.approx(expected, abs=0.05)


def test_a_posterior_that_ignores_the_row_carries_nothing():
    z = np.random.default_rng(3).normal(size=(17, 3)).astype("float32")
    found = latent_estimates.mutual_information(z, 0 * z, 0 * z)
    assert float(found) == pytest.approx(0, abs=1e-5)


def test_units_are_active_by_the_variance_of_their_mean():
    rng = np.random.default_rng(4)
    deviation = np.array([1.0, 0.2, 0.05, 0.0, 3.0])  # Variances 1, .04, .0025, 0, 9.
    means = 5 + deviation * rng.normal(size=(997, 5))
    assert int(latent_estimates.active_units(means)) == 3
    assert int(latent_estimates.active_units(means, threshold=0.5)) == 2
    assert int(latent_estimates.active_units(means, threshold=0.001)) == 4
    with pytest.raises(ValueError, match="`threshold`"):
        latent_estimates.active_units(means, threshold=float("nan"))
