"""Ways between vectors: ends, the middle, lengths, what has no angle."""

import numpy as np
import pytest

from keras_llm.ops import paths

B, Z = 5, 7
RNG = np.random.default_rng(0)
START, END = RNG.normal(size=(2, B, Z))
FRACTION = RNG.uniform(size=B)


def test_linear_mixes():
    found = np.asarray(paths.linear(START, END, FRACTION))
    for row, f in enumerate(FRACTION):
        expected = np.average([START[row], END[row]], axis=0, weights=[1 - f, f])
        np.testing.assert_allclose(found[row], expected, atol=1e-6)


def test_spherical_turns_by_a_share_of_the_angle():
    end = END * np.linalg.norm(START, axis=1, keepdims=True)
    end /= np.linalg.norm(END, axis=1, keepdims=True)
    found = np.float64(paths.spherical(START, end, FRACTION))

    def angles(a, b):
        lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        return np.arccos((a * b).sum(1) / lengths)

    whole = angles(START, end)
    np.testing.assert_allclose(angles(START, found), FRACTION * whole, atol=1e-4)
    np.testing.assert_allclose(angles(found, end), (1 - FRACTION) * whole, atol=1e-4)
    lengths = np.linalg.norm(START, axis=1)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), lengths, rtol=1e-5)


@pytest.mark.parametrize("path", [paths.linear, paths.spherical])
def test_both_ends_are_reached(path):
    np.testing.assert_allclose(path(START, END, np.zeros(B)), START, atol=1e-5)
    np.testing.assert_allclose(path(START, END, np.ones(B)), END, atol=1e-5)


@pytest.mark.parametrize("factor", [1.0, 3.0, -1.0, 0.0])
def test_without_an_angle_the_way_is_straight(factor):
    found = paths.spherical(START, factor * START, FRACTION)
    expected = START * (1 + FRACTION * (factor - 1))[:, None]
    np.testing.assert_allclose(found, expected, atol=1e-5)
