"""The block is its parts, wired as its docstring says; and what it may see."""

import numpy as np
import pytest

from keras_llm.layers import EncoderBlock, RowLayout

RNG = np.random.default_rng(59)
B, T, D = 2, 5, 12
X = RNG.normal(size=(B, T, D)).astype("float32")
REAL = np.array([[True] * 5, [True] * 3 + [False] * 2])


def arrays(*layers):
    return [lambda x, layer=layer: np.asarray(layer(x)) for layer in layers]


def test_norms_after_the_sums():
    block = EncoderBlock(3, 11)
    y = block(X, mask=REAL)
    norm, feed, second = arrays(
        block.attention_norm, block.feed_forward, block.feed_forward_norm
    )
    middle = norm(X + np.asarray(block.attention(X, mask=REAL)))
    np.testing.assert_allclose(y, second(middle + feed(middle)), atol=1e-5)


def test_norms_before_the_branches():
    block = EncoderBlock(3, 11, pre_norm=True, activation="swiglu")
    y = block(X, mask=REAL)
    norm, feed, second = arrays(
        block.attention_norm, block.feed_forward, block.feed_forward_norm
    )
    middle = X + np.asarray(block.attention(norm(X), mask=REAL))
    np.testing.assert_allclose(y, middle + feed(second(middle)), atol=1e-5)


@pytest.mark.parametrize("pre_norm", [False, True])
def test_it_sees_both_ways_and_real_tokens_alone(pre_norm):
    block = EncoderBlock(3, 11, pre_norm=pre_norm)
    before = np.asarray(block(X, mask=REAL))
    for t, changes in ((4, False), (2, True)):
        other = X.copy()
        other[1, t] = RNG.normal(size=D)
        after = np.asarray(block(other, mask=REAL))
        np.testing.assert_array_equal(after[0], before[0])
        assert (np.abs(after[1, :2] - before[1, :2]).max() > 1e-4) == changes


@pytest.mark.parametrize("dtype", ["float32", "mixed_float16"])
def test_a_row_of_padding_is_finite(dtype):
    y = EncoderBlock(3, 11, dtype=dtype)(X, mask=np.zeros((B, T), bool))
    assert np.isfinite(np.asarray(y, "float32")).all()


def test_its_dropouts_draw_different_masks():
    block = EncoderBlock(3, 11, dropout=0.5, seed=3)
    block.build((None, None, D))
    x = np.ones((1, 20, 20), "float32")
    dropouts = (
        block.attention.dropout,
        block.attention_dropout,
        block.feed_forward_dropout,
    )
    drawn = {np.asarray(each(x, training=True)).tobytes() for each in dropouts}
    assert len(drawn) == 3
    assert (np.asarray(block(X, training=True)) != np.asarray(block(X))).any()


def test_kernels_start_differently():
    block = EncoderBlock(3, D)
    block.build((None, None, D))
    inner = np.asarray(block.feed_forward.inner.kernel)
    assert (inner != np.asarray(block.feed_forward.output_projection.kernel)).any()


def test_heads_must_divide():
    with pytest.raises(ValueError, match="num_heads=5"):
        EncoderBlock(5, 11).build((None, None, D))


def test_row_layout():
    positions, real = RowLayout()(np.zeros((3, 4), "int32"), np.array([4, 0, 1]))
    np.testing.assert_array_equal(positions, [range(4)])
    expected = [[1, 1, 1, 1], [0, 0, 0, 0], [1, 0, 0, 0]]
    np.testing.assert_array_equal(real, np.array(expected, bool))
