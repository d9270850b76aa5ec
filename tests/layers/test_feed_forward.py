"""The feed-forward network against float64 NumPy and the math library's erf."""

import math

import numpy as np
import pytest

from keras_llm.layers import FeedForward

RNG = np.random.default_rng(17)
ERF = np.vectorize(math.erf)
TANH = np.sqrt(2 / np.pi)


def gelu(a):
    return a * (1 + ERF(a / np.sqrt(2))) / 2


def gelu_tanh(a):
    return a * (1 + np.tanh(TANH * (a + 0.044715 * a**3))) / 2


def swiglu(a):
    gate, up = np.split(a, 2, axis=-1)
    return gate / (1 + np.exp(-gate)) * up


def relu(a):
    return np.where(a > 0, a, 0)


def geglu_tanh(a):
    gate, up = np.split(a, 2, axis=-1)
    return gelu_tanh(gate) * up


@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("function", [gelu, gelu_tanh, relu, swiglu, geglu_tanh])
def test_formula(function, use_bias):
    layer = FeedForward(11, activation=function.__name__, use_bias=use_bias)
    x = RNG.normal(size=(2, 3, 5)).astype("float32")
    layer.build(x.shape)
    for weight in layer.weights:
        weight.assign(RNG.normal(0, 1, weight.shape))
    weights = {w.path.split("/", 1)[1]: np.asarray(w, "float64") for w in layer.weights}
    inner = x @ weights["inner/kernel"] + weights.get("inner/bias", 0)
    expected = function(inner) @ weights["output/kernel"]
    expected = expected + weights.get("output/bias", 0)
    np.testing.assert_allclose(layer(x), expected, rtol=1e-4, atol=1e-4)


def test_the_two_gelus_differ():
    a = np.linspace(-3, 3, 31)
    assert np.abs(gelu(a) - gelu_tanh(a)).max() > 1e-4


def test_dropout_acts_before_the_output_projection_while_training_only():
    layer = FeedForward(1, "relu", use_bias=False, dropout=0.5, seed=3)
    x = np.ones((64, 1), "float32")
    layer.build(x.shape)
    for weight in layer.weights:
        weight.assign(np.ones(weight.shape))
    np.testing.assert_array_equal(layer(x), x)
    assert set(np.unique(layer(x, training=True))) == {0.0, 2.0}


def test_arguments_are_checked():
    with pytest.raises(ValueError, match="'gelu', 'gelu_tanh', 'relu'"):
        FeedForward(4, activation="tanh")
    with pytest.raises(ValueError, match="inner_dim"):
        FeedForward(0)
