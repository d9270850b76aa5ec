"""Embeddings against indexing and float64 products."""

import numpy as np
import pytest
from keras import ops

from keras_llm.layers import LearnedPositions, TokenEmbedding

RNG = np.random.default_rng(13)


def test_token_embedding_looks_up():
    layer = TokenEmbedding(11, 3)
    ids = RNG.integers(0, 11, (2, 5))
    vectors = layer(ids)
    np.testing.assert_array_equal(vectors, np.asarray(layer.embeddings)[ids])


@pytest.mark.parametrize("leading", [(1,), (5,), (40,), (2, 5), (2, 3, 5)])
def test_reverse_is_a_product_with_the_transposed_table(leading):
    layer = TokenEmbedding(131, 7)
    x = RNG.normal(size=(*leading, 7)).astype("float32")
    logits = layer(x, reverse=True)
    expected = x.astype("float64") @ np.asarray(layer.embeddings, "float64").T
    np.testing.assert_allclose(logits, expected, atol=1e-5)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("rows", [1, 5, 40])
def test_next_token_logits_are_that_product_too(rows, compiled):
    layer = TokenEmbedding(131, 7)
    layer.build(None)
    x = RNG.normal(size=(rows, 7)).astype("float32")
    logits = layer.next_token_logits(x, compiled)
    expected = x.astype("float64") @ np.asarray(layer.embeddings, "float64").T
    np.testing.assert_allclose(logits, expected, atol=1e-5)


@pytest.mark.parametrize("leading", [(1,), (5,), (2, 5)])
def test_output_bias_is_added_to_logits_alone(leading):
    plain, biased = TokenEmbedding(11, 3), TokenEmbedding(11, 3, use_output_bias=True)
    for layer in (plain, biased):
        layer.build(None)
    bias = RNG.normal(size=11).astype("float32")
    biased.set_weights([np.asarray(plain.embeddings), bias])
    x = RNG.normal(size=(*leading, 3)).astype("float32")
    expected = np.asarray(plain(x, reverse=True)) + bias
    np.testing.assert_allclose(biased(x, reverse=True), expected, atol=1e-6)
    ids = RNG.integers(0, 11, leading)
    np.testing.assert_array_equal(biased(ids), plain(ids))


def test_logits_are_float32_in_mixed_precision():
    layer = TokenEmbedding(11, 3, dtype="mixed_bfloat16")
    vectors = layer(np.array([[1, 2]]))
    assert "bfloat16" in str(vectors.dtype)
    logits = ops.convert_to_numpy(layer(vectors, reverse=True))
    assert logits.dtype == np.float32


def test_positions_look_up():
    layer = LearnedPositions(9, 3)
    positions = np.array([[0, 1, 0], [8, 2, 3]])
    table = np.asarray(layer(np.arange(9)))
    np.testing.assert_array_equal(layer(positions), table[positions])


@pytest.mark.parametrize("layer", [TokenEmbedding, LearnedPositions])
@pytest.mark.parametrize("sizes", [(0, 3), (3, 0), (3, -1)])
def test_sizes_are_checked(layer, sizes):
    with pytest.raises(ValueError, match="must be positive"):
        layer(*sizes)
