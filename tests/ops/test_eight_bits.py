"""Eight bits a weight beside plain arithmetic in float64."""

import numpy as np
import pytest
from keras import ops

from keras_llm.ops import eight_bits

RNG = np.random.default_rng(0)


def test_a_weight_is_off_by_half_a_scale_at_most():
    matrix = RNG.normal(size=(37, 23)) * RNG.uniform(0.01, 50, (37, 1))
    values, scale = eight_bits.rounded(matrix)
    assert values.dtype == np.int8 and scale.dtype == np.float32
    np.testing.assert_allclose(scale, np.abs(matrix).max(1) / 127, rtol=1e-6)
    off = np.abs(values * scale[:, None].astype("float64") - matrix)
    assert (off <= 0.5001 * scale[:, None]).all()
    assert (np.abs(values.astype(int)).max(axis=1) == 127).all()


def test_a_row_of_zeros_stays_one():
    values, scale = eight_bits.rounded(np.array([[0.0, 0.0], [0.0, -3.0]]))
    assert values.tolist() == [[0, 0], [0, -127]]
    assert scale[0] == 0


def test_what_eight_bits_hold_comes_back():
    held = RNG.integers(-127, 128, (7, 5))
    held[:, 0] = 127
    values, scale = eight_bits.rounded(held * 0.25)
    np.testing.assert_array_equal(values, held)
    np.testing.assert_allclose(scale, 0.25)


# One stretch, several with a rest, and as many as there may be.
@pytest.mark.parametrize("stretch", [2**20, 11 * 4 * 23, 1])
@pytest.mark.parametrize("shape", [(23,), (2, 23), (2, 3, 23)])
def test_products_by_stretches(shape, stretch, monkeypatch):
    monkeypatch.setattr(eight_bits, "_STRETCH_BYTES", stretch)
    values = RNG.integers(-127, 128, (37, 23)).astype("int8")
    scale = RNG.uniform(0.1, 2, 37).astype("float32")
    x = RNG.normal(size=shape).astype("float32")
    y = ops.convert_to_numpy(
        eight_bits.product(ops.convert_to_tensor(x), values, scale)
    )
    wide = values * scale[:, None].astype("float64")
    np.testing.assert_allclose(y, x.astype("float64") @ wide.T, rtol=1e-4, atol=1e-3)
