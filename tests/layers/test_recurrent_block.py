"""The recurrent block: what its parts compute, put together."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_llm.layers import RecurrentBlock

B, T, D, U = 3, 5, 4, 7


def inputs():
    return np.random.default_rng(0).normal(size=(B, T, D)).astype("float32")


def make(width=D, **options):
    block = RecurrentBlock(U, **options)
    block.build((None, None, width))
    rng = np.random.default_rng(1)
    block.set_weights([0.5 * rng.normal(size=w.shape) for w in block.get_weights()])
    return block


def normed(x, scale, bias):
    x = x.astype("float64")
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * scale + bias


def library_lstm(x, weights):
    layer = keras.layers.LSTM(U, return_sequences=True)
    layer.build(x.shape)
    layer.set_weights(weights)
    return np.asarray(layer(x.astype("float32")))


def test_alone_it_is_an_lstm():
    block, x = make(), inputs()
    np.testing.assert_allclose(
        block(x), library_lstm(x, block.get_weights()), atol=1e-5
    )


def test_norm_residual_and_projection():
    block, x = make(pre_norm=True, residual=True), inputs()
    scale, bias, *lstm, projection = block.get_weights()
    expected = library_lstm(normed(x, scale, bias), lstm) + x @ projection
    np.testing.assert_allclose(block(x), expected, atol=1e-5)


def test_equal_widths_need_no_projection():
    block = make(width=U, residual=True)
    x = np.random.default_rng(2).normal(size=(B, T, U)).astype("float32")
    assert block.projection is None
    expected = library_lstm(x, block.get_weights()) + x
    np.testing.assert_allclose(block(x), expected, atol=1e-5)


def test_weight_names_are_stable():
    block = RecurrentBlock(U, pre_norm=True, residual=True, name="block_0")
    block.build((None, None, D))
    assert [weight.path for weight in block.weights] == [
        "block_0/norm/scale",
        "block_0/norm/bias",
        "block_0/lstm/kernel",
        "block_0/lstm/recurrent_kernel",
        "block_0/lstm/bias",
        "block_0/projection/kernel",
    ]


def test_steps_and_state_are_the_sequence():
    block, x = make(pre_norm=True, residual=True, layer_norm=True), inputs()
    reset = np.random.default_rng(3).random((B, T)) > 0.6
    y, last = block(x, reset_mask=reset, return_state=True)
    state = block.lstm.initial_state(B)
    for t in range(T):
        output, state = block.step(x[:, t], state, reset[:, t])
        np.testing.assert_allclose(output, y[:, t], atol=1e-5)
    for a, b in zip(state, last, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    first, state = block(x[:, :2], reset_mask=reset[:, :2], return_state=True)
    rest = block(x[:, 2:], initial_state=state, reset_mask=reset[:, 2:])
    np.testing.assert_allclose(ops.concatenate([first, rest], 1), y, atol=1e-5)


def test_dropout_spares_the_way_around():
    block = make(residual=True, dropout=0.5, seed=3)
    x = inputs()
    branch = np.asarray(block(x)) - x @ block.get_weights()[-1]
    dropped = np.asarray(block(x, training=True)) - x @ block.get_weights()[-1]
    kept = np.abs(dropped) > 1e-6
    assert 0.2 < kept.mean() < 0.8
    np.testing.assert_allclose(dropped[kept], 2 * branch[kept], atol=1e-5)


def test_symbolic_shapes_and_dtypes():
    block = RecurrentBlock(U, dtype="mixed_bfloat16")
    y, (h, c) = block(keras.Input((None, D)), return_state=True)
    assert (y.shape, h.shape, c.shape) == ((None, None, U), (None, U), (None, U))
    assert (y.dtype, c.dtype) == ("bfloat16", "float32")
    real = block(inputs(), return_state=True)[1][1]
    assert keras.backend.standardize_dtype(real.dtype) == "float32"


def test_saved_and_loaded_it_is_the_same(tmp_path):
    x = keras.Input((None, D))
    block = make(pre_norm=True, residual=True, dropout=0.1, recurrent_dropout=0.2)
    model = keras.Model(x, block(x))
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(inputs()), model(inputs()))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"units": -1}, "`units` must be positive"),
        ({"dropout": 1.5}, "`rate` must be at least 0"),
        ({"recurrent_dropout": -0.1}, "`recurrent_dropout` must be at least 0"),
    ],
    ids=str,
)
def test_bad_arguments_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        RecurrentBlock(**{"units": 3, **options})
