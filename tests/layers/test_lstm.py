"""The LSTM layer: against Keras' own and against itself run in other ways."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_llm.layers import LSTM

B, T, D, U = 3, 11, 5, 7


def inputs(seed=0, batch=B, steps=T):
    return np.random.default_rng(seed).normal(size=(batch, steps, D)).astype("float32")


def make(weight_seed=1, **options):
    """Returns a built layer with random weights and every output returned."""
    options = {"return_sequences": True, "return_state": True, **options}
    layer = LSTM(U, **options)
    layer.build((None, None, D))
    rng = np.random.default_rng(weight_seed)
    layer.set_weights([0.5 * rng.normal(size=w.shape) for w in layer.get_weights()])
    return layer


def arrays(outputs):
    outputs = outputs if isinstance(outputs, (tuple, list)) else [outputs]
    return [np.asarray(ops.cast(value, "float32")) for value in outputs]


def assert_same(ours, expected, atol=1e-5):
    for a, b in zip(arrays(ours), arrays(expected), strict=True):
        np.testing.assert_allclose(a, b, atol=atol)


def weight_gradients(layer, x, upstream, **call):
    """Returns the gradients of sum(outputs * upstream) for the layer's weights."""
    if keras.config.backend() == "jax":
        import jax

        def loss(weights):
            y, _ = layer.stateless_call(weights, [], x, **call)
            return ops.sum(ops.cast(y[0], "float32") * upstream)

        values = [weight.value for weight in layer.trainable_variables]
        return arrays(jax.jit(jax.grad(loss))(values))
    import tensorflow as tf

    with tf.GradientTape() as tape:
        loss = ops.sum(ops.cast(layer(x, **call)[0], "float32") * upstream)
    weights = [weight.value for weight in layer.trainable_variables]
    return arrays(tape.gradient(loss, weights))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("go_backwards", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_it_is_keras_lstm_with_the_same_weights(training, go_backwards, masked):
    ours = make(go_backwards=go_backwards)
    theirs = keras.layers.LSTM(
        U, return_sequences=True, return_state=True, go_backwards=go_backwards
    )
    theirs.build((B, T, D))
    theirs.set_weights(ours.get_weights())
    mask = None
    if masked:  # Each row is masked in the middle, none where it starts or ends.
        mask = np.random.default_rng(2).random((B, T)) > 0.5
        mask[:, [0, -1]] = True
    x = inputs()
    assert_same(
        ours(x, mask=mask, training=training), theirs(x, mask=mask, training=training)
    )


def test_it_starts_with_keras_weights_in_shape_and_bias():
    ours, theirs = LSTM(U), keras.layers.LSTM(U)
    ours.build((B, T, D))
    theirs.build((B, T, D))
    shapes = [weight.shape for weight in ours.weights]
    assert shapes == [weight.shape for weight in theirs.weights]
    assert [w.name for w in ours.weights] == ["kernel", "recurrent_kernel", "bias"]
    np.testing.assert_array_equal(ours.get_weights()[2], theirs.get_weights()[2])
    recurrent = ours.get_weights()[1]
    np.testing.assert_allclose(recurrent @ recurrent.T, np.eye(U), atol=1e-5)
    without = LSTM(U, unit_forget_bias=False)
    without.build((B, T, D))
    np.testing.assert_array_equal(without.get_weights()[2], np.zeros(4 * U))


@pytest.mark.parametrize("layer_norm", [False, True])
def test_training_and_inference_agree_in_gradient_too(layer_norm):
    layer, x, upstream = make(layer_norm=layer_norm), inputs(), inputs(1)[..., :1]
    fast = weight_gradients(layer, x, upstream, training=True)
    plain = weight_gradients(layer, x, upstream, training=False)
    assert len(fast) == (7 if layer_norm else 3)
    for a, b in zip(fast, plain, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * max(1, np.abs(b).max()))


@pytest.mark.parametrize("options", [{}, {"layer_norm": True}], ids=str)
def test_step_by_step_is_the_sequence(options):
    layer, x = make(**options), inputs()
    reset = np.random.default_rng(3).random((B, T)) > 0.7
    y, h, c = layer(x, reset_mask=reset)
    state = layer.initial_state(B)
    for t in range(T):
        output, state = layer.step(x[:, t], state, reset[:, t])
        np.testing.assert_allclose(output, y[:, t], atol=1e-5)
    assert_same(state, (h, c))


@pytest.mark.parametrize("training", [False, True])
def test_two_pieces_with_carried_state_are_the_whole(training):
    layer, x = make(), inputs()
    whole = layer(x, training=training)
    first, *state = layer(x[:, :4], training=training)
    second, *state = layer(x[:, 4:], initial_state=state, training=training)
    assert_same((ops.concatenate([first, second], axis=1), *state), whole)


@pytest.mark.parametrize("training", [False, True])
def test_documents_in_one_row_are_documents_alone(training):
    layer, x = make(), inputs()
    reset = np.zeros((B, T), bool)
    reset[:, [3, 8]] = True
    start = [np.ones((B, U), "float32")] * 2
    y, h, c = layer(x, initial_state=start, reset_mask=reset, training=training)
    first = layer(x[:, :3], initial_state=start)[0]
    second = layer(x[:, 3:8])[0]
    third, *last = layer(x[:, 8:])
    assert_same((y, h, c), (np.concatenate([first, second, third], axis=1), *last))


@pytest.mark.parametrize("training", [False, True])
def test_padding_leaves_the_state_of_the_last_real_step(training):
    layer, x = make(), inputs()
    lengths = np.array([4, 11, 7])
    mask = np.arange(T) < lengths[:, None]
    y, h, c = layer(x, mask=mask, training=training)
    for row, length in enumerate(lengths):
        alone = arrays(layer(x[row : row + 1, :length]))
        np.testing.assert_allclose(np.asarray(y)[row, :length], alone[0][0], atol=1e-5)
        np.testing.assert_allclose(np.asarray(h)[row], alone[1][0], atol=1e-5)
        np.testing.assert_allclose(np.asarray(c)[row], alone[2][0], atol=1e-5)
        for repeated in np.asarray(y)[row, length:]:
            np.testing.assert_array_equal(repeated, np.asarray(h)[row])


@pytest.mark.parametrize("training", [False, True])
def test_a_masked_step_does_nothing_even_with_a_reset(training):
    layer, x = make(), inputs()
    mask, reset = np.ones((B, T), bool), np.zeros((B, T), bool)
    mask[:, 5] = False
    reset[:, 5] = True
    y, h, c = layer(x, mask=mask, reset_mask=reset, training=training)
    np.testing.assert_array_equal(np.asarray(y)[:, 5], np.asarray(y)[:, 4])
    without, *last = layer(np.delete(x, 5, axis=1))
    assert_same((np.delete(y, 5, axis=1), h, c), (without, *last))


def test_a_row_does_not_depend_on_its_batch():
    layer, x = make(), inputs()
    whole = arrays(layer(x))
    for row in range(B):
        alone = arrays(layer(x[row : row + 1]))
        for a, b in zip(alone, whole, strict=True):
            np.testing.assert_allclose(a[0], b[row], atol=1e-6)


def test_a_mask_travels_through_a_model():
    ids = np.array([[4, 2, 0, 0], [1, 3, 2, 0]])
    layer = LSTM(U, return_sequences=True)
    model = keras.Sequential(
        [keras.layers.Embedding(5, D, mask_zero=True), layer, LSTM(3)]
    )
    y = np.asarray(model(ids))
    shorter = np.asarray(model(ids[:1, :2]))
    np.testing.assert_allclose(y[:1], shorter, atol=1e-6)


def test_what_is_returned_follows_the_options():
    x = inputs()
    y, h, c = make()(x)
    assert_same(make(return_state=False)(x), y)
    assert_same(make(return_sequences=False, return_state=False)(x), y[:, -1])
    assert_same(make(return_sequences=False)(x), (h, h, c))
    symbolic = make()(keras.Input((None, D)))
    assert [s.shape for s in symbolic] == [(None, None, U), (None, U), (None, U)]


def test_a_functional_model_takes_and_gives_state():
    layer = make()
    x = keras.Input((None, D))
    state = (keras.Input((U,)), keras.Input((U,)))
    model = keras.Model([x, *state], layer(x, initial_state=state))
    rng = np.random.default_rng(4)
    given = [rng.normal(size=(B, U)).astype("float32") for _ in range(2)]
    assert_same(model([inputs(), *given]), layer(inputs(), initial_state=given))


def test_mixed_precision_keeps_a_wide_cell_state():
    exact, x, upstream = make(), inputs(), inputs(1)[..., :1]
    mixed = make(dtype="mixed_bfloat16")
    mixed.set_weights(exact.get_weights())
    for training in (False, True):
        y, h, c = mixed(x, training=training)
        dtypes = [keras.backend.standardize_dtype(v.dtype) for v in (y, h, c)]
        assert dtypes == ["bfloat16", "bfloat16", "float32"]
        # Bound: the products round to 8 bits, over 11 steps; states are below 1.
        assert_same((y, h, c), exact(x), atol=0.03)
    # A state passed in is not rounded on its way: 1 + 2^-10 is no bfloat16.
    kept = np.full((B, U), 1 + 2**-10, "float32")
    none = np.zeros((B, T), bool)
    c = mixed(x, mask=none, initial_state=(np.zeros((B, U)), kept))[2]
    np.testing.assert_array_equal(np.asarray(c), kept)
    ours = weight_gradients(mixed, x, upstream, training=True)
    for a, b in zip(
        ours, weight_gradients(exact, x, upstream, training=True), strict=True
    ):
        assert np.abs(a - b).max() < 0.05 * np.abs(b).max()


def test_recurrent_dropout_is_one_mask_a_row_and_call():
    # Only the recurrent product's candidate part is used, through open gates, so
    # that c = tanh(small * dropped h) shows the mask.
    layer = LSTM(499, return_state=True, recurrent_dropout=0.25, seed=5)
    layer.build((None, None, D))
    kernel, recurrent, bias = (np.zeros_like(w) for w in layer.get_weights())
    recurrent[:, 2 * 499 : 3 * 499] = 0.01 * np.eye(499)
    bias[:] = 30.0
    bias[2 * 499 : 3 * 499] = 0.0
    layer.set_weights([kernel, recurrent, bias])
    start = (np.ones((B, 499), "float32"), np.zeros((B, 499), "float32"))

    def seen(layer, **call):
        c = layer(inputs(steps=1), initial_state=start, **call)[2]
        return np.asarray(c) / 0.01

    masks = [seen(layer, training=True) for _ in range(2)]
    for mask in masks:
        values = np.unique(mask.round(3))
        np.testing.assert_allclose(values, [0, 1.333], atol=1e-3)
        # 1,497 draws: 4 standard deviations are 0.045.
        assert abs((mask == 0).mean() - 0.25) < 0.045
    assert (masks[0] != masks[1]).mean() > 0.2, "another mask with every call"
    assert (masks[0][0] != masks[0][1]).mean() > 0.2, "another mask for every row"
    np.testing.assert_allclose(seen(layer, training=False), 1, atol=1e-3)
    again = LSTM.from_config(layer.get_config())
    again.build((None, None, D))
    again.set_weights([kernel, recurrent, bias])
    np.testing.assert_array_equal(seen(again, training=True), masks[0])


def test_recurrent_dropout_is_the_same_at_every_step():
    layer = make(recurrent_dropout=0.5, seed=6)
    x = inputs()
    y, *_ = layer(x, training=True)
    mask = arrays(LSTM.from_config(layer.get_config())._dropout_mask(x))[0]
    assert set(np.unique(mask)) == {0.0, 2.0}
    plain = make()
    kernel, recurrent, bias = plain.get_weights()
    for row in range(B):  # A dropped unit is a row of the matrix that is 0.
        plain.set_weights([kernel, mask[row][:, None] * recurrent, bias])
        np.testing.assert_allclose(
            np.asarray(y)[row], plain(x[row : row + 1])[0][0], atol=1e-5
        )


@pytest.mark.parametrize("layer_norm", [False, True])
def test_saved_and_loaded_it_is_the_same(layer_norm, tmp_path):
    x = keras.Input((None, D))
    layer = make(layer_norm=layer_norm, go_backwards=True, recurrent_dropout=0.5)
    model = keras.Model(x, layer(x))
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert_same(again(inputs()), model(inputs()), atol=0)
    assert again.layers[1].get_config() == layer.get_config()


def test_layer_norm_does_not_see_the_scale_of_its_input():
    layer, x = make(layer_norm=True, epsilon=1e-12), inputs()
    assert_same(layer(1_000 * x), layer(x), atol=1e-4)


def test_cudnn_is_reached_over_the_same_variables(monkeypatch):
    own = make()
    monkeypatch.setattr(keras.distribution, "list_devices", lambda kind: [f"{kind}:0"])
    on_gpu = make()
    is_tensorflow = keras.config.backend() == "tensorflow"
    assert on_gpu.supports_jit == (not is_tensorflow)
    assert (on_gpu._on_cudnn is not None) == is_tensorflow
    for options in ({"use_cudnn": False}, {"layer_norm": True}, {"go_backwards": True}):
        assert make(**options)._on_cudnn is None
    # Without a GPU, Keras' layer computes the same on another road.
    x, upstream = inputs(), inputs(1)[..., :1]
    assert [w.path for w in on_gpu.weights] == [
        w.path.replace(own.name, on_gpu.name) for w in own.weights
    ]
    assert_same(on_gpu(x), own(x))
    on_gpu.set_weights([2 * w for w in own.get_weights()])
    own.set_weights(on_gpu.get_weights())
    assert_same(on_gpu(x), own(x))
    a, b = (weight_gradients(layer, x, upstream) for layer in (on_gpu, own))
    for first, second in zip(a, b, strict=True):
        np.testing.assert_allclose(first, second, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"units": 0}, "`units` must be positive"),
        ({"recurrent_dropout": 1.0}, "`recurrent_dropout` must be at least 0"),
        ({"recurrent_dropout": float("nan")}, "`recurrent_dropout`"),
        ({"epsilon": 0.0}, "`epsilon` must be positive"),
        ({"use_cudnn": True}, "`use_cudnn` must be one of"),
    ],
    ids=str,
)
def test_bad_arguments_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        LSTM(**{"units": 3, **options})


def test_an_input_without_time_is_refused():
    with pytest.raises(ValueError, match="sequences"):
        LSTM(3)(np.ones((2, 5), "float32"))
