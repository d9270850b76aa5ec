"""Norms against float64 NumPy; statistics that low precision would spoil."""

import numpy as np
import pytest
from keras import ops

from keras_llm.layers import LayerNorm, RMSNorm

RNG = np.random.default_rng(11)


def made(norm, x):
    norm.build(x.shape)
    for weight in norm.weights:
        weight.assign(RNG.normal(1, 0.5, weight.shape))
    return norm, [np.asarray(weight, "float64") for weight in norm.weights]


def test_layer_norm():
    x = RNG.normal(3, 2, (2, 5, 7)).astype("float32")
    norm, (scale, bias) = made(LayerNorm(epsilon=0.1), x)
    exact = x.astype("float64")
    centred = exact - exact.mean(-1, keepdims=True)
    expected = centred / np.sqrt(exact.var(-1, keepdims=True) + 0.1) * scale + bias
    np.testing.assert_allclose(norm(x), expected, atol=1e-5)


def test_rms_norm():
    x = RNG.normal(3, 2, (2, 5, 7)).astype("float32")
    norm, (scale,) = made(RMSNorm(epsilon=0.1), x)
    exact = x.astype("float64")
    power = (exact**2).mean(-1, keepdims=True)
    np.testing.assert_allclose(norm(x), exact / np.sqrt(power + 0.1) * scale, atol=1e-5)


def test_a_zero_centred_scale_counts_from_one():
    x = RNG.normal(3, 2, (2, 5, 7)).astype("float32")
    plain, centred = RMSNorm(), RMSNorm(zero_centred=True)
    np.testing.assert_array_equal(centred(x), plain(x))  # From 0 and from 1.
    np.testing.assert_array_equal(centred.scale, np.zeros(7))
    scale = RNG.normal(size=7)
    plain.scale.assign(1 + scale)
    centred.scale.assign(scale)
    np.testing.assert_allclose(centred(x), plain(x), rtol=1e-6)


def test_layer_norm_without_bias_has_none():
    norm, weights = made(LayerNorm(use_bias=False), np.ones((2, 3)))
    assert len(weights) == 1 and norm.bias is None


@pytest.mark.parametrize("norm", [LayerNorm, RMSNorm])
def test_float16_squares_do_not_overflow(norm):
    x = np.array([[3e4, -3e4, 1e4]], "float16")
    y = norm(dtype="float16")(x)
    assert np.abs(ops.cast(y, "float32")).max() < 2


@pytest.mark.parametrize("norm", [LayerNorm, RMSNorm])
def test_bfloat16_errs_by_its_own_rounding_only(norm):
    # bfloat16 has 8 bits; a mean over 999 values summed in it would lose far more.
    x = ops.cast(RNG.normal(5, 1, (3, 999)), "bfloat16")
    exact = norm()(ops.cast(x, "float32"))
    rounded = ops.cast(norm(dtype="mixed_bfloat16")(x), "float32")
    np.testing.assert_allclose(rounded, exact, rtol=2**-8, atol=1e-6)


@pytest.mark.parametrize("norm", [LayerNorm, RMSNorm])
@pytest.mark.parametrize("epsilon", [-1.0, float("nan")])
def test_epsilon_is_checked(norm, epsilon):
    with pytest.raises(ValueError, match="epsilon"):
        norm(epsilon=epsilon)
