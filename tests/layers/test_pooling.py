"""Pooling against a loop over rows in float64."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_llm.layers import Pooling
from keras_llm.layers.pooling import POOLINGS

B, T, D = 3, 5, 7
RNG = np.random.default_rng(61)
X = RNG.normal(size=(B, T, D)).astype("float32")
# Not only on the right: a layer on its own may meet any mask.
REAL = np.array([[1, 1, 1, 0, 0], [0, 0, 1, 0, 1], [1, 1, 1, 1, 1]], bool)


def made(kind, **options):
    layer = Pooling(kind, **options)
    layer.build(X.shape)
    for weight in layer.weights:
        weight.assign(RNG.normal(size=weight.shape))
    return layer


def reference(layer, x):
    """Returns the vector [D] of one row's real tokens [T, D]."""
    x = np.float64(x)
    if layer.kind == "first":
        return x[0]
    if layer.kind == "max":
        return x.max(0)
    if layer.kind == "mean":
        return x.sum(0) / len(x)
    odds = np.exp(x @ np.asarray(layer.query, "float64"))
    return odds @ x / odds.sum()


@pytest.mark.parametrize("kind", POOLINGS)
def test_it_is_taken_over_real_tokens(kind):
    layer = made(kind)
    expected = [reference(layer, x[real]) for x, real in zip(X, REAL, strict=True)]
    np.testing.assert_allclose(layer(X, mask=REAL), expected, atol=1e-6)


@pytest.mark.parametrize("kind", POOLINGS)
def test_without_a_mask_all_tokens_are_real(kind):
    layer = made(kind)
    expected = [reference(layer, x) for x in X]
    np.testing.assert_allclose(layer(X), expected, atol=1e-6)


@pytest.mark.parametrize("kind", POOLINGS)
@pytest.mark.parametrize("padding", [1e9, np.inf, np.nan])
def test_what_stands_at_padding_never_matters(kind, padding):
    layer = made(kind)
    spoilt = np.where(REAL[..., None], X, np.float32(padding))
    np.testing.assert_array_equal(layer(spoilt, mask=REAL), layer(X, mask=REAL))


@pytest.mark.parametrize("kind", POOLINGS)
@pytest.mark.parametrize("dtype", ["float32", "mixed_float16", "mixed_bfloat16"])
def test_a_row_without_a_real_token_gives_zeros(kind, dtype):
    real = REAL.copy()
    real[1] = False
    y = ops.cast(made(kind, dtype=dtype)(X, mask=real), "float32")
    np.testing.assert_array_equal(y[1], np.zeros(D))
    assert np.asarray(y)[[0, 2]].all()


@pytest.mark.parametrize("kind", POOLINGS)
def test_the_gradient_of_such_a_row_is_zero(kind):
    layer, real = made(kind), np.zeros((B, T), bool)

    def total(x):
        return ops.sum(layer(x, mask=real))

    if keras.config.backend() == "jax":
        import jax

        slope = jax.grad(total)(X)
    else:
        import tensorflow as tf

        x = tf.constant(X)
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = total(x)
        slope = tf.convert_to_tensor(tape.gradient(y, x))
    np.testing.assert_array_equal(slope, np.zeros_like(X))


def test_attention_starts_as_the_mean():
    first = Pooling("attention")(X, mask=REAL)
    np.testing.assert_allclose(first, Pooling("mean")(X, mask=REAL), atol=1e-6)


def test_keras_own_mask_is_used():
    ids = np.where(REAL, 3, 0)
    x = keras.layers.Embedding(4, D, mask_zero=True)(ids)
    y = Pooling("mean")(x)
    np.testing.assert_allclose(y, np.asarray(x)[0, :1].repeat(B, 0), atol=1e-6)


def test_half_precision_sums_in_float32():
    x = np.full((1, 4099, 1), 1.0, "float16")
    y = Pooling("mean", dtype="float16")(x)
    assert float(y[0, 0]) == 1.0


def test_kind_is_checked():
    with pytest.raises(ValueError, match="'first', 'mean', 'max', 'attention'.*last"):
        Pooling("last")
