"""Rotary positions against complex multiplication in float64."""

import numpy as np
import pytest
from keras import ops

from keras_llm.ops.rotary import frequencies, rotary_table, rotate

RNG = np.random.default_rng(3)


@pytest.mark.parametrize("base", [10_000.0, 500.0])
def test_rotation_is_complex_multiplication(base):
    x = RNG.normal(size=(2, 3, 5, 14)).astype("float32")  # B N T H
    positions = RNG.integers(0, 999, (2, 5))
    table = [part[:, None] for part in rotary_table(positions, 14, base)]
    angle = positions[..., None] * base ** (-np.arange(7) / 7)  # B T F
    z = (x[..., :7] + 1j * x[..., 7:]) * np.exp(1j * angle)[:, None]
    expected = np.concatenate([z.real, z.imag], axis=-1)
    np.testing.assert_allclose(rotate(x, table), expected, atol=3e-4)


def test_products_depend_on_the_distance_alone():
    query, key = RNG.normal(size=(2, 1, 6)).astype("float32")

    def product(i, j):
        turned = [
            rotate(x, rotary_table(np.array([p]), 6)) for x, p in ((query, i), (key, j))
        ]
        return float(ops.sum(turned[0] * turned[1]))

    assert product(5, 2) == pytest.approx(product(105, 102), abs=1e-4)
    assert product(5, 2) != pytest.approx(product(5, 3), abs=1e-3)


def test_scaling_slows_the_pairs_that_turn_seldom():
    base, factor, low, high, original = 500.0, 8.0, 1.0, 4.0, 61
    expected = []
    for i in range(7):
        frequency = base ** (-i / 7)
        wavelength = 2 * np.pi / frequency
        if wavelength > original / low:
            frequency /= factor
        elif not wavelength < original / high:
            smooth = (original / wavelength - low) / (high - low)
            frequency = (1 - smooth) * frequency / factor + smooth * frequency
        expected.append(frequency)
    found = frequencies(14, base, (factor, low, high, original))
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    kinds = np.array(expected) / base ** (-np.arange(7) / 7)
    assert kinds[0] == 1 and 0.13 < kinds[2] < 0.99 and kinds[-1] == 1 / factor
    cosine, _ = rotary_table(np.array([9]), 14, base, (factor, low, high, original))
    np.testing.assert_allclose(cosine[0, :7], np.cos(9 * np.array(expected)), atol=1e-6)


def test_angles_are_float32_in_any_compute_type():
    cosine, sine = rotary_table(np.array([257, 258]), 4)
    assert ops.convert_to_numpy(cosine).dtype == np.float32
    assert not np.allclose(sine[0], sine[1])
    x = ops.ones((2, 4), "bfloat16")
    assert rotate(x, (cosine, sine)).dtype == x.dtype
