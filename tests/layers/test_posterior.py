"""Posteriors: their outputs against NumPy, their noise, their statistics."""

import keras
import numpy as np
import pytest

from keras_llm.layers import BatchNormPosterior, GaussianPosterior

B, D, Z = 7, 5, 3
X = np.random.default_rng(0).normal(size=(B, D)).astype("float32")
KINDS = (GaussianPosterior, BatchNormPosterior)


def make(kind, seed=1, **options):
    layer = kind(Z, seed=seed, **options)
    layer.build((None, D))
    rng = np.random.default_rng(2)
    for weight in layer.trainable_weights:
        weight.assign(rng.normal(size=weight.shape))
    return layer


def values(layer):
    return {w.path.split("/", 1)[1]: np.float64(np.asarray(w)) for w in layer.weights}


def reference(w, x, mean, limit):
    """Log-variance and KL in float64, the KL as the difference of two entropies."""
    raw = x @ w["log_variance/kernel"] + w["log_variance/bias"]
    log_variance = raw if limit is None else limit * np.tanh(raw / limit)
    cross = 0.5 * (np.log(2 * np.pi) + mean**2 + np.exp(log_variance))
    entropy = 0.5 * (1 + np.log(2 * np.pi) + log_variance)
    return log_variance, cross - entropy


@pytest.mark.parametrize("limit", [None, 2.0, 10.0])
def test_gaussian_outputs(limit):
    layer = make(GaussianPosterior, log_variance_limit=limit)
    z, mean, log_variance, kl = (np.asarray(y) for y in layer(X))
    w = values(layer)
    expected = X @ w["mean/kernel"] + w["mean/bias"]
    np.testing.assert_allclose(mean, expected, atol=1e-5)
    wanted = reference(w, X, expected, limit)
    np.testing.assert_allclose(log_variance, wanted[0], atol=1e-5)
    np.testing.assert_allclose(kl, wanted[1], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(z, mean)


def test_batch_norm_outputs_over_the_real_rows():
    layer = make(BatchNormPosterior, gamma=0.7, epsilon=1e-3, momentum=0.75)
    real = np.array([1, 1, 0, 1, 1, 0, 1], bool)
    z, mean, log_variance, kl = (
        np.asarray(y) for y in layer(X, mask=real, sample=False, training=True)
    )
    w = values(layer)
    raw = X.astype("float64") @ w["mean/kernel"]
    centre, variance = raw[real].mean(0), raw[real].var(0)
    expected = 0.7 * (raw - centre) / np.sqrt(variance + 1e-3) + w["shift"]
    np.testing.assert_allclose(mean, expected, atol=1e-4)
    np.testing.assert_allclose(kl, reference(w, X, expected, 10)[1], atol=1e-3)
    np.testing.assert_array_equal(z, mean)
    # A quarter of the way from (0, 1) to the batch's.
    np.testing.assert_allclose(w["moving_mean"], centre / 4, atol=1e-5)
    np.testing.assert_allclose(w["moving_variance"], 0.75 + variance / 4, atol=1e-5)
    # From now on without the batch: a row alone gives the same.
    together = np.asarray(layer(X)[1])
    still = 0.7 * (raw - centre / 4) / np.sqrt(0.75 + variance / 4 + 1e-3) + w["shift"]
    np.testing.assert_allclose(together, still, atol=1e-4)
    np.testing.assert_allclose(layer(X[2:3])[1], together[2:3], atol=1e-5)


def test_the_expected_kl_has_its_floor_whatever_the_weights():
    """Even where posterior and prior would be one: no weights at all but noise."""
    for scale in (1e-3, 1.0, 1e3):
        layer = make(BatchNormPosterior, gamma=0.6)
        layer.set_weights([scale * w for w in layer.get_weights()])
        kl = np.asarray(layer(X, training=True)[3])
        assert kl.sum(-1).mean() >= Z * 0.6**2 / 2 - 1e-4


@pytest.mark.parametrize("bad", [np.zeros(B, bool), "nan"])
def test_running_statistics_survive_a_bad_batch(bad):
    layer = make(BatchNormPosterior)
    x, mask = (X * np.nan, None) if isinstance(bad, str) else (X, bad)
    outputs = layer(x, mask=mask, training=True)
    np.testing.assert_array_equal(layer.moving_mean, np.zeros(Z))
    np.testing.assert_array_equal(layer.moving_variance, np.ones(Z))
    if mask is not None:
        assert all(np.isfinite(np.asarray(y)).all() for y in outputs)


@pytest.mark.parametrize("kind", KINDS)
def test_samples_are_drawn_while_training_or_when_asked(kind):
    layer, same = make(kind), make(kind)
    first, second = (np.asarray(layer(X, sample=True)[0]) for _ in range(2))
    assert (first != second).all()
    np.testing.assert_array_equal(first, same(X, sample=True)[0])
    z, mean, *_ = layer(X, training=True)
    assert (np.asarray(z) != np.asarray(mean)).all()
    z, mean, *_ = layer(X, training=True, sample=False)
    np.testing.assert_array_equal(z, mean)


def test_samples_are_of_the_posterior():
    layer = make(GaussianPosterior)
    x = np.tile(X[:1], (20_000, 1))
    z, mean, log_variance, _ = (np.asarray(y) for y in layer(x, sample=True))
    deviation = np.exp(0.5 * log_variance[0])
    # 20,000 draws: more than 4 standard errors.
    np.testing.assert_allclose(z.mean(0), mean[0], atol=(0.03 * deviation).max())
    np.testing.assert_allclose(z.std(0), deviation, rtol=0.03)
    assert np.abs(np.corrcoef(z.T) - np.eye(Z)).max() < 0.03


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "bfloat16"])
def test_everything_is_float32_in_half_precision_too(kind, dtype):
    layer = make(kind, dtype=dtype)
    for y, exact in zip(layer(X), make(kind)(X), strict=True):
        assert keras.backend.standardize_dtype(y.dtype) == "float32"
        np.testing.assert_allclose(y, exact, atol=1e-6)


def test_a_huge_log_variance_is_bounded():
    layer = make(GaussianPosterior)
    *_, log_variance, kl = (np.asarray(y) for y in layer(1e6 * X))
    assert np.abs(log_variance).max() <= 10 and np.isfinite(kl).all()


def test_weight_names_are_stable():
    layer = BatchNormPosterior(Z, name="posterior")
    layer.build((None, D))
    assert [weight.path for weight in layer.trainable_weights] == [
        "posterior/shift",
        "posterior/mean/kernel",
        "posterior/log_variance/kernel",
        "posterior/log_variance/bias",
    ]
    assert [weight.path for weight in layer.non_trainable_weights] == [
        "posterior/moving_mean",
        "posterior/moving_variance",
    ]


@pytest.mark.parametrize(
    ("kind", "options", "said"),
    [
        (GaussianPosterior, {"latent_dim": 0}, "`latent_dim` must be positive"),
        (GaussianPosterior, {"log_variance_limit": 0.0}, "`log_variance_limit`"),
        (BatchNormPosterior, {"latent_dim": -1}, "`latent_dim`"),
        (BatchNormPosterior, {"gamma": 0.0}, "`gamma` must be positive"),
        (BatchNormPosterior, {"momentum": 1.5}, "`momentum`"),
        (BatchNormPosterior, {"epsilon": float("nan")}, "`epsilon`"),
    ],
)
def test_bad_arguments_are_refused(kind, options, said):
    with pytest.raises(ValueError, match=said):
        kind(**{"latent_dim": Z, **options})
