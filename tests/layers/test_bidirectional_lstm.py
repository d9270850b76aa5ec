"""The bidirectional LSTM: against Keras' own, and each row from its own end."""

import keras
import numpy as np
import pytest

from keras_llm.layers import BidirectionalLSTM

B, T, D, U = 3, 7, 5, 11
LENGTHS = np.array([4, 7, 1])
REAL = np.arange(T) < LENGTHS[:, None]
X = np.random.default_rng(0).normal(size=(B, T, D)).astype("float32")


def make(**options):
    layer = BidirectionalLSTM(U, **options)
    layer.build((None, None, D))
    rng = np.random.default_rng(1)
    layer.set_weights([0.5 * rng.normal(size=w.shape) for w in layer.get_weights()])
    return layer


def library(weights, return_sequences):
    layer = keras.layers.Bidirectional(
        keras.layers.LSTM(U, return_sequences=return_sequences)
    )
    layer.build((None, T, D))
    layer.set_weights(weights)
    return layer


@pytest.mark.parametrize("return_sequences", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_each_row_is_keras_own_over_its_real_steps(return_sequences, training):
    layer = make(return_sequences=return_sequences)
    theirs = library(layer.get_weights(), return_sequences)
    y = np.asarray(layer(X, mask=REAL, training=training))
    for row, length in enumerate(LENGTHS):
        expected = np.asarray(theirs(X[row : row + 1, :length]))[0]
        found = y[row, :length] if return_sequences else y[row]
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_what_stands_in_the_padding_does_not_matter():
    layer = make(return_sequences=True, return_state=True)
    other = np.where(REAL[..., None], X, 1e3).astype("float32")
    for one, two in zip(layer(X, mask=REAL), layer(other, mask=REAL), strict=True):
        np.testing.assert_allclose(one, two, atol=1e-6)
    y = np.asarray(layer(X, mask=REAL)[0])
    assert (y[~REAL][:, U:] == 0).all(), "the backward half has read nothing there"


def test_final_states_are_the_ends_of_the_sequences():
    layer = make(return_sequences=True, return_state=True)
    y, h, c = (np.asarray(value) for value in layer(X, mask=REAL))
    np.testing.assert_array_equal(h[:, :U], y[np.arange(B), LENGTHS - 1, :U])
    np.testing.assert_array_equal(h[:, U:], y[:, 0, U:])
    assert c.shape == h.shape
    last = make(return_state=True)(X, mask=REAL)
    for found, expected in zip(last, (h, h, c), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_weight_names_are_stable():
    layer = BidirectionalLSTM(U, name="encoder_0")
    layer.build((None, None, D))
    assert [weight.path for weight in layer.weights] == [
        f"encoder_0/{direction}/{name}"
        for direction in ("forward", "backward")
        for name in ("kernel", "recurrent_kernel", "bias")
    ]


def test_dropout_takes_outputs_and_spares_the_state():
    layer = make(return_sequences=True, return_state=True, dropout=0.5, seed=3)
    exact, h, c = (np.asarray(value) for value in layer(X))
    y, *state = (np.asarray(value) for value in layer(X, training=True))
    kept = y != 0
    assert 0.35 < kept.mean() < 0.65
    np.testing.assert_allclose(y[kept], 2 * exact[kept], atol=1e-5)
    for found, expected in zip(state, (h, c), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_cell_state_stays_wide():
    layer = make(return_sequences=True, return_state=True, dtype="mixed_bfloat16")
    promised = layer(keras.Input((None, D)))
    found = layer(X)
    for spec, value in zip(promised, found, strict=True):
        assert spec.dtype == keras.backend.standardize_dtype(value.dtype)
    assert [spec.dtype for spec in promised] == ["bfloat16", "bfloat16", "float32"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"units": 0}, "`units` must be positive"),
        ({"dropout": 1.0}, "`rate` must be at least 0"),
        ({"recurrent_dropout": float("nan")}, "`recurrent_dropout`"),
    ],
    ids=str,
)
def test_bad_arguments_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        BidirectionalLSTM(**{"units": 3, **options})
