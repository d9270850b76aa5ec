"""Gaussians: against integrals taken on a grid."""

import numpy as np
import pytest

from keras_llm.ops import gaussian

GRID = np.linspace(-40, 40, 400_001)
STEP = GRID[1] - GRID[0]


def log_normal(z, mean, variance):
    return -((z - mean) ** 2) / (2 * variance) - 0.5 * np.log(2 * np.pi * variance)


@pytest.mark.parametrize("mean", [-3.0, 0.0, 0.7])
@pytest.mark.parametrize("variance", [0.04, 1.0, 9.0])
def test_kl_and_density_are_the_integral(mean, variance):
    log_q, log_p = log_normal(GRID, mean, variance), log_normal(GRID, 0, 1)
    expected = np.sum(np.exp(log_q) * (log_q - log_p)) * STEP
    log_variance = np.float32(np.log(variance))
    found = gaussian.kl_from_standard(np.float32([mean]), log_variance[None])
    np.testing.assert_allclose(found, [expected], atol=1e-5)
    points = GRID[::50_000, None].astype("float32")
    density = gaussian.log_density(points, np.float32([mean]), log_variance[None])
    np.testing.assert_allclose(density, log_q[::50_000], rtol=1e-5)


def test_kl_keeps_its_digits_near_the_prior():
    """exp(v) - v - 1 in float32 gives 0 or noise where v^2 / 2 is below 1e-7."""
    small = np.float32([1e-4, -1e-3, 3e-3])
    exact = 0.5 * (np.expm1(np.float64(small)) - np.float64(small))
    found = np.asarray(gaussian.kl_from_standard(np.zeros(3, "float32"), small))
    assert (found >= 0).all()
    np.testing.assert_allclose(found, exact, atol=1e-10)
    assert (found[1:] > 0).all()


def test_samples_have_the_asked_for_moments():
    noise = np.random.default_rng(0).normal(size=(100_000, 2)).astype("float32")
    mean, variance = np.float32([2, -1]), np.float32([0.25, 9])
    z = np.asarray(gaussian.sample(mean, np.log(variance), noise))
    # 100,000 draws: 4 standard errors.
    np.testing.assert_allclose(z.mean(0), mean, atol=0.04)
    np.testing.assert_allclose(z.var(0), variance, rtol=0.02)


def test_half_precision_is_widened():
    half = np.array([300.0], "float16")  # Its square is above float16's range.
    found = np.asarray(gaussian.kl_from_standard(half, half * 0))
    assert found.dtype == np.float32 and found[0] == 45_000
