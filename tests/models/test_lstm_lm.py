"""The LSTM language model: plain NumPy, cached decoding, carried state."""

import functools
import math

import keras
import numpy as np
import pytest
from keras import ops

from keras_llm import models
from keras_llm.models import LSTMLMConfig, LSTMLMDecoder, build_lstm_lm
from tests.conformance.comparing import quick, quick_decoding, quick_training

B, T, V = 3, 13, 19
END = 17
CONFIGS = {
    "classic": LSTMLMConfig(vocab_size=V, embedding_width=5, units=7, num_layers=2),
    "modern": LSTMLMConfig(
        vocab_size=V,
        embedding_width=5,
        units=7,
        num_layers=3,
        tied=True,
        pre_norm=True,
        residual=True,
        layer_norm=True,
        separator_id=END,
    ),
}
each_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())


def make(config, seed=1, dtype=None):
    model = build_lstm_lm(config, dtype)
    rng = np.random.default_rng(seed)
    model.set_weights([0.5 * rng.normal(size=w.shape) for w in model.get_weights()])
    return model


@pytest.fixture(scope="module")
def made():
    """Returns the function from a config to a model and its quick call, made once."""

    @functools.cache
    def of(config):
        model = make(config)
        return model, quick(model)

    return of


def token_ids(seed=0, batch=B, length=T):
    ids = np.random.default_rng(seed).integers(V, size=(batch, length))
    ids[:, [0, 6]] = END  # Two documents a row.
    return ids.astype("int32")


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_it_is_the_classic_network(made):
    model, run = made(CONFIGS["classic"])
    table, *weights, head = (w.astype("float64") for w in model.get_weights())
    ids = token_ids()
    expected = np.zeros((B, T, V))
    for row in range(B):
        h, c = np.zeros((2, 7)), np.zeros((2, 7))
        for t in range(T):
            x = table[ids[row, t]]
            for layer in range(2):
                kernel, recurrent, bias = weights[3 * layer : 3 * layer + 3]
                z = x @ kernel + h[layer] @ recurrent + bias
                i, f, g, o = z[:7], z[7:14], z[14:21], z[21:]
                c[layer] = sigmoid(f) * c[layer] + sigmoid(i) * np.tanh(g)
                x = h[layer] = sigmoid(o) * np.tanh(c[layer])
            expected[row, t] = x @ head
    np.testing.assert_allclose(run(ids), expected, atol=1e-5)


@each_config
def test_cached_decoding_is_the_full_forward(config, made):
    model, run = made(config)
    ids = token_ids()
    full = np.asarray(run(ids))
    lengths = np.array([4, 1, 9], "int32")
    padded = np.where(np.arange(9) < lengths[:, None], ids[:, :9], 3)
    prefill, step = quick_decoding(LSTMLMDecoder(model), capacity=T)
    logits, state = prefill(padded, lengths)
    rows = np.arange(B)
    np.testing.assert_allclose(logits, full[rows, lengths - 1], atol=1e-5)
    for more in range(T - 9):
        at = lengths + more
        logits, state = step(ids[rows, at], state)
        np.testing.assert_allclose(logits, full[rows, at], atol=1e-5)


@each_config
def test_a_row_does_not_depend_on_its_batch(config, made):
    prefill, _ = quick_decoding(LSTMLMDecoder(made(config)[0]), capacity=8)
    ids = token_ids()[:, :8]
    lengths = np.array([8, 3, 5], "int32")
    together, state = prefill(ids, lengths)
    for row in range(B):
        own = ids[row : row + 1, : lengths[row]]
        alone, own_state = prefill(own, lengths[row : row + 1])
        np.testing.assert_allclose(alone[0], together[row], atol=1e-6)
        for name, value in own_state.items():
            np.testing.assert_allclose(value[0], state[name][row], atol=1e-6)


def test_the_state_starts_anew_at_a_separator(made):
    model, run = made(CONFIGS["modern"])
    ids = token_ids()
    whole = np.asarray(run(ids))
    np.testing.assert_allclose(whole[:, 6:], run(ids[:, 6:]), atol=1e-5)
    running = build_lstm_lm(CONFIGS["modern"].replace(separator_id=None))
    running.set_weights(model.get_weights())
    later = np.asarray(quick(running)(ids))[:, 6:]
    assert np.abs(later - whole[:, 6:]).max() > 0.01


@each_config
@pytest.mark.parametrize("training", [False, True])
def test_pieces_with_carried_state_are_the_whole(config, training, made):
    model, run = made(config)
    decoder = LSTMLMDecoder(model)
    ids = token_ids()
    sequence = quick(functools.partial(decoder.sequence, training=training))
    state, hidden = decoder.initial_state(B), []
    for start, end in ((0, 4), (4, 5), (5, T)):
        piece, state = sequence(ids[:, start:end], state)
        hidden.append(piece)
    logits = decoder.project(ops.concatenate(hidden, axis=1))
    np.testing.assert_allclose(logits, run(ids), atol=1e-5)
    # The state is the one that decoding goes on from.
    longer = np.concatenate([ids, [[1], [2], [3]]], axis=1)
    following, _ = quick(decoder.step)(longer[:, -1], state)
    np.testing.assert_allclose(following, run(longer)[:, -1], atol=1e-5)


def weight_gradients(model, forward):
    """Returns the gradients of a loss of `forward()`'s logits for the weights."""
    variables = model.trainable_variables
    upstream = np.random.default_rng(5).normal(size=(B, 5, V)).astype("float32")
    if keras.config.backend() == "jax":
        import jax

        def loss(values):
            mapping = list(zip(variables, values, strict=True))
            with keras.StatelessScope(state_mapping=mapping):
                return ops.sum(forward() * upstream)

        found = jax.jit(jax.grad(loss))([variable.value for variable in variables])
    else:
        import tensorflow as tf

        with tf.GradientTape() as tape:
            loss = ops.sum(forward() * upstream)
        found = tape.gradient(loss, [variable.value for variable in variables])
        found = [tf.convert_to_tensor(gradient) for gradient in found]
    return [np.asarray(gradient) for gradient in found]


@each_config
def test_one_piece_has_the_gradients_of_the_model(config, made):
    model, _ = made(config)
    decoder = LSTMLMDecoder(model)
    ids = token_ids()[:, 3:8]  # With a separator inside.

    def in_one_piece():
        state = decoder.initial_state(B)
        return decoder.project(decoder.sequence(ids, state, training=True)[0])

    ours = weight_gradients(model, in_one_piece)
    expected = weight_gradients(model, lambda: model(ids, training=True))
    for variable, a, b in zip(model.trainable_variables, ours, expected, strict=True):
        tolerance = 1e-5 * max(1, np.abs(b).max())
        np.testing.assert_allclose(a, b, atol=tolerance, err_msg=variable.path)


@each_config
def test_trunk_and_head_are_the_model(config, made):
    model, run = made(config)
    trunk, project = models.split_head(model)
    assert trunk.output.shape == (None, None, config.head_width)
    joined = quick(lambda ids: project(trunk(ids)))
    np.testing.assert_allclose(joined(token_ids()), run(token_ids()), atol=1e-6)


@each_config
def test_saved_and_loaded_it_is_the_same(config, made, tmp_path):
    model, run = made(config)
    models.save(model, tmp_path / "model")
    again = models.load(tmp_path / "model")
    assert again.config == config
    np.testing.assert_array_equal(quick(again)(token_ids()), run(token_ids()))


@each_config
def test_mixed_precision_stays_near(config, made):
    exact = np.asarray(made(config)[1](token_ids()))
    mixed = make(config, dtype="mixed_bfloat16")
    logits = np.asarray(quick(mixed)(token_ids()))
    assert logits.dtype == np.float32
    # Bound: 8-bit products in up to 3 layers and 13 steps, logits of size 2 to 4.
    assert np.abs(logits - exact).max() < 0.15
    prefill, step = quick_decoding(LSTMLMDecoder(mixed), T)
    _, state = prefill(token_ids(), np.full(B, T))
    dtypes = {
        name: keras.backend.standardize_dtype(state[name].dtype) for name in state
    }
    assert dtypes["h_0"] == "bfloat16"
    assert dtypes["c_0"] == "float32"
    _, after = step(token_ids()[:, 0], state)
    assert {name: value.dtype for name, value in after.items()} == {
        name: value.dtype for name, value in state.items()
    }


def test_dropout_is_on_only_in_training():
    config = CONFIGS["classic"].replace(dropout=0.5, recurrent_dropout=0.3)
    model = make(config)
    ids = token_ids()
    run, run_in_training = quick(model), quick_training(model)
    np.testing.assert_array_equal(run(ids), run(ids))
    one, two = (np.asarray(run_in_training(ids)) for _ in range(2))
    assert np.abs(one - two).max() > 0.01


@each_config
def test_parameters_and_operations_are_counted(config):
    model = build_lstm_lm(config)
    assert model.config is config
    assert models.build(config).count_params() == model.count_params()
    assert models.count_parameters(model) == model.count_params()
    # Every value of a matrix multiplies once a token; the table is looked up.
    matrices = sum(math.prod(w.shape) for w in model.weights if len(w.shape) == 2)
    looked_up = 0 if config.tied else V * config.embedding_width
    assert models.flops_per_token(config) == 6 * (matrices - looked_up)


def test_the_large_network_has_its_size():
    config = LSTMLMConfig(vocab_size=10_000, num_layers=6)
    assert (config.embedding_width, config.units) == (512, 1_024)
    layers = 4 * 1_024 * (512 + 1_024 + 1) + 5 * 4 * 1_024 * (2 * 1_024 + 1)
    assert layers == 48_259_072
    assert models.flops_per_token(config) / 6 == (
        layers - 6 * 4 * 1_024 + 1_024 * 10_000
    )


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"units": 0}, "`units` must be positive"),
        ({"num_layers": -1}, "`num_layers` must be positive"),
        ({"dropout": float("nan")}, "`dropout` must be at least 0"),
        ({"vocab_size": 5, "separator_id": 5}, "must be an id of the vocabulary"),
    ],
    ids=str,
)
def test_bad_sizes_are_refused(fields, said):
    with pytest.raises(ValueError, match=said):
        LSTMLMConfig(**fields)


def test_an_open_vocabulary_is_refused():
    with pytest.raises(ValueError, match="`vocab_size` must be positive"):
        build_lstm_lm(LSTMLMConfig())
