"""Activations beside their formulas, in float64 and one number at a time."""

import math

import numpy as np
import pytest
from keras import ops

from keras_llm.ops.activations import activate

A = np.linspace(-6, 6, 121)


def gelu(a):
    return a * math.erfc(-a / math.sqrt(2)) / 2


def gelu_tanh(a):
    return a * (1 + math.tanh(math.sqrt(2 / math.pi) * (a + 0.044715 * a**3))) / 2


def silu(a):
    return a / (1 + math.exp(-a))


@pytest.mark.parametrize(
    "name, formula",
    [("gelu", gelu), ("gelu_tanh", gelu_tanh), ("relu", lambda a: max(a, 0.0))],
)
def test_one_number_becomes_one(name, formula):
    y = ops.convert_to_numpy(activate(ops.convert_to_tensor(A, "float32"), name))
    np.testing.assert_allclose(y, [formula(a) for a in A], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "name, of_gate", [("swiglu", silu), ("geglu", gelu), ("geglu_tanh", gelu_tanh)]
)
def test_the_first_half_gates_the_second(name, of_gate):
    both = np.stack([A, A[::-1] + 0.3], axis=1).astype("float32")
    y = ops.convert_to_numpy(activate(ops.convert_to_tensor(both), name))
    expected = [[of_gate(float(gate)) * up] for gate, up in both]
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=5e-6)


def test_half_precision_is_off_by_its_rounding_alone():
    x = ops.cast(ops.convert_to_tensor(A, "float32"), "bfloat16")
    rounded = ops.convert_to_numpy(ops.cast(x, "float32")).astype("float64")
    y = activate(x, "gelu")
    assert y.dtype == "bfloat16"
    y = ops.convert_to_numpy(ops.cast(y, "float32"))
    # Eight bits of fraction, also where 1 + erf would be 0 in bfloat16; from -5 on
    # down what is left of 1 + erf in float32 has fewer.
    expected = np.array([gelu(a) for a in rounded])
    np.testing.assert_allclose(y, expected, rtol=2**-8, atol=1e-6)
