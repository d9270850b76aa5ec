"""The block is its parts, wired as its docstring says."""

import numpy as np
import pytest

from keras_llm.layers import DecoderBlock, DocumentLayout, Linear

RNG = np.random.default_rng(19)


@pytest.mark.parametrize("norm", ["layer_norm", "rms_norm"])
def test_residual_wiring(norm):
    block = DecoderBlock(3, 11, norm=norm, activation="swiglu", use_bias=False)
    x = RNG.normal(size=(2, 5, 12)).astype("float32")
    y = np.asarray(block(x))
    middle = x + np.asarray(block.attention(block.attention_norm(x)))
    expected = middle + np.asarray(block.feed_forward(block.feed_forward_norm(middle)))
    np.testing.assert_allclose(y, expected, atol=1e-5)


def test_post_norms_stand_before_the_sums():
    block = DecoderBlock(3, 11, norm="zero_centred_rms_norm", post_norm=True)
    x = RNG.normal(size=(2, 5, 12)).astype("float32")
    block.build(x.shape)
    for weight in block.weights:
        weight.assign(RNG.normal(0, 0.5, weight.shape))
    y = np.asarray(block(x))
    branch = block.attention(block.attention_norm(x))
    middle = x + np.asarray(block.attention_post_norm(branch))
    branch = block.feed_forward(block.feed_forward_norm(middle))
    expected = middle + np.asarray(block.feed_forward_post_norm(branch))
    np.testing.assert_allclose(y, expected, atol=1e-5)
    names = {weight.path.split("/", 1)[1] for weight in block.weights}
    assert {"attention_post_norm/scale", "feed_forward_post_norm/scale"} < names


def test_its_dropouts_draw_different_masks():
    block = DecoderBlock(3, 11, dropout=0.5, seed=3)
    block.build((None, None, 12))
    x = np.ones((1, 20, 20), "float32")
    dropouts = (block.attention_dropout, block.feed_forward_dropout)
    first, second = (np.asarray(d(x, training=True)) for d in dropouts)
    assert (first != second).any()


def test_kernels_of_one_shape_start_differently():
    block = DecoderBlock(3, 12, kernel_initializer="glorot_uniform")
    block.build((None, None, 12))
    inner = np.asarray(block.feed_forward.inner.kernel)
    output = np.asarray(block.feed_forward.output_projection.kernel)
    assert (inner != output).any()


def test_norm_is_checked():
    with pytest.raises(ValueError, match="'layer_norm', 'rms_norm'"):
        DecoderBlock(3, 11, norm="batch_norm")


def test_linear_is_a_product():
    layer = Linear(5)
    x = RNG.normal(size=(2, 3, 7)).astype("float32")
    layer.build(x.shape)
    layer.bias.assign(RNG.normal(size=5))
    expected = x.astype("float64") @ np.asarray(layer.kernel) + np.asarray(layer.bias)
    np.testing.assert_allclose(layer(x), expected, atol=1e-5)
    with pytest.raises(ValueError, match="out_dim"):
        Linear(0)


def test_document_layout_without_separator_is_shared_by_all_rows():
    positions, bias = DocumentLayout(None)(np.ones((2, 5), "int32"))
    np.testing.assert_array_equal(positions, [range(5)])
    assert tuple(bias.shape) == (1, 1, 5, 5)


def test_document_layout_keeps_documents_apart():
    positions, bias = DocumentLayout(0, window=2)(np.array([[4, 0, 3, 5, 0]]))
    np.testing.assert_array_equal(positions, [[0, 0, 1, 2, 0]])
    seen = [
        [1, 0, 0, 0, 0],
        [0, 1, 0, 0, 0],
        [0, 1, 1, 0, 0],
        [0, 0, 1, 1, 0],
        [0, 0, 0, 0, 1],
    ]
    np.testing.assert_array_equal(np.asarray(bias)[0, 0] == 0, np.array(seen, bool))
