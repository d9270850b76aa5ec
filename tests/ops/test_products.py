"""Products in panels against plain ones."""

import numpy as np
import pytest

from keras_llm.ops import products


@pytest.mark.parametrize("columns", [1, 63, 64, 65, 192, 199])
def test_a_packed_product_is_the_product(columns):
    rng = np.random.default_rng(columns)
    kernel = rng.normal(size=(11, columns)).astype("float32")
    packed = products.pack(kernel)
    for shape in ((11,), (5, 11), (2, 3, 11)):
        x = rng.normal(size=shape).astype("float32")
        got = np.asarray(products.packed_product(x, packed, columns))
        assert got.shape == (*shape[:-1], columns)
        np.testing.assert_allclose(got, x.astype(float) @ kernel, atol=1e-5)


@pytest.mark.parametrize("vocab", [7, 64, 131])
def test_a_product_with_a_transposed_table(vocab):
    rng = np.random.default_rng(vocab)
    table = rng.normal(size=(vocab, 5)).astype("float32")
    x = rng.normal(size=(3, 5)).astype("float32")
    got = np.asarray(products.transposed_product(x, table))
    np.testing.assert_allclose(got, x.astype(float) @ table.T, atol=1e-5)
