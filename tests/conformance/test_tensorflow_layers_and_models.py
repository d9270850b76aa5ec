"""SavedModel, gradients and two replicas: the run on TensorFlow alone."""

import functools
import itertools
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_llm import models
from tests.conformance import cases
from tests.conformance.comparing import assert_same

IDS = np.random.default_rng(43).integers(0, 9, (4, 7)).astype("int32")


@pytest.fixture(params=sorted(cases.LAYERS))
def case(request):
    return cases.LAYERS[request.param]


@pytest.fixture(params=sorted(cases.MODELS))
def config(request):
    return cases.MODELS[request.param]


@pytest.fixture(params=sorted(cases.PADDED_MODELS))
def padded(request):
    return cases.PADDED_MODELS[request.param]


@pytest.fixture(scope="module")
def strategy():
    devices = tf.config.list_logical_devices("CPU")
    return tf.distribute.MirroredStrategy([device.name for device in devices])


def saved_and_loaded(functions, folder):
    """Returns what is loaded from one SavedModel of many functions.

    Args:
        functions: By name, (function, an input, what holds its weights). The weights
            alone are tracked: to walk whole layers takes several times as long.
        folder: Where to save.
    """
    module = tf.Module()
    module.weights = [
        weight.value for *_, holder in functions.values() for weight in holder.weights
    ]
    for name, (function, x, _) in functions.items():
        spec = tf.nest.map_structure(
            lambda x: tf.TensorSpec((None, None, *x.shape[2:])[: x.ndim], x.dtype), x
        )
        traced = tf.function(function, input_signature=[spec], autograph=False)
        setattr(module, name, traced)
    tf.saved_model.save(module, str(folder))
    return tf.saved_model.load(str(folder))


@pytest.fixture(scope="module")
def saved_layers(tmp_path_factory):
    """Every layer's outputs by name, and all of them loaded from one SavedModel."""
    expected, functions = {}, {}
    for name, case in cases.LAYERS.items():
        layer = case.make()
        expected[name] = case.call(layer, case.x)
        functions[name] = (functools.partial(case.call, layer), case.x, layer)
    folder = tmp_path_factory.mktemp("layers") / "saved"
    return expected, saved_and_loaded(functions, folder)


@pytest.mark.parametrize("name", sorted(cases.LAYERS))
def test_layer_as_saved_model(name, saved_layers):
    expected, loaded = saved_layers
    found = getattr(loaded, name)(cases.LAYERS[name].x)
    assert_same(found, expected[name], rtol=1e-4, atol=1e-6)


@pytest.fixture(scope="module")
def built():
    """Every model by name."""
    padded = {name: case.config for name, case in cases.PADDED_MODELS.items()}
    return {
        name: models.build(config) for name, config in (cases.MODELS | padded).items()
    }


@pytest.fixture(scope="module")
def saved_models(built, tmp_path_factory):
    """All models, loaded from one SavedModel."""
    inputs = dict.fromkeys(cases.MODELS, IDS)
    inputs |= {name: case.inputs for name, case in cases.PADDED_MODELS.items()}
    functions = {name: (model, inputs[name], model) for name, model in built.items()}
    return saved_and_loaded(functions, tmp_path_factory.mktemp("models") / "saved")


@pytest.mark.parametrize("name", sorted(cases.MODELS))
def test_model_as_saved_model(name, built, saved_models):
    found = getattr(saved_models, name)(IDS)
    assert_same(found, built[name](IDS), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", sorted(cases.PADDED_MODELS))
def test_padded_model_as_saved_model(name, built, saved_models):
    padded = cases.PADDED_MODELS[name]
    found = padded.named(getattr(saved_models, name)(padded.inputs))
    expected = padded.named(built[name](padded.inputs))
    assert_same(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", sorted(cases.MODELS))
def test_gradients_reach_every_weight(name, built):
    check_gradients(built[name], IDS)


@pytest.mark.parametrize("name", sorted(cases.PADDED_MODELS))
def test_gradients_reach_every_weight_of_a_padded_model(name, built):
    check_gradients(built[name], cases.PADDED_MODELS[name].inputs)


def check_gradients(model, x):
    with tf.GradientTape() as tape:
        outputs = tf.nest.flatten(model(x, training=True))
        # Weighted unlike: a norm's or a unit vector's square is the same always.
        loss = sum(
            tf.reduce_sum(y * tf.reshape(tf.cos(tf.range(0.0, tf.size(y))), y.shape))
            for y in outputs
            if y.dtype.is_floating
        )
    values = [weight.value for weight in model.trainable_weights]
    for weight, gradient in zip(
        model.trainable_weights, tape.gradient(loss, values), strict=True
    ):
        assert gradient is not None, weight.path
        assert tf.reduce_any(tf.convert_to_tensor(gradient) != 0), weight.path


def on_two_replicas(strategy, function, x):
    """Returns the outputs of both replicas, each given one half of the rows."""

    def part(context):
        def half(x):
            start = len(x) // 2 * context.replica_id_in_sync_group
            return tf.constant(x[start : start + len(x) // 2])

        return tf.nest.map_structure(half, x)

    values = strategy.experimental_distribute_values_from_function(part)
    run = tf.function(
        lambda values: strategy.run(
            lambda rows: tf.nest.flatten(function(rows)), args=(values,)
        ),
        autograph=False,
    )
    return [
        tf.concat(strategy.experimental_local_results(output), axis=0)
        for output in run(values)
    ]


def test_two_replicas_are_one(case, strategy):
    with strategy.scope():
        layer = case.make()
        layer.build(case.x.shape)
    function = functools.partial(case.call, layer)
    outputs = on_two_replicas(strategy, function, case.x)
    expected = [
        np.broadcast_to(y, joined.shape)  # One row may stand for all.
        for y, joined in zip(tf.nest.flatten(function(case.x)), outputs, strict=True)
    ]
    assert_same(outputs, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "case",
    [name for name in sorted(cases.LAYERS) if cases.LAYERS[name].random_output],
    indirect=True,
)
def test_replicas_draw_different_numbers(case, strategy):
    with strategy.scope():
        layer = case.make()
        layer.build(case.x.shape)
    x = tf.ones((50, 50, *case.x.shape[2:]), case.x.dtype)

    def drawn():
        return tf.nest.flatten(case.call(layer, x, training=True))[0]

    run = tf.function(lambda: strategy.run(drawn), autograph=False)
    first, second = strategy.experimental_local_results(run())
    assert tf.reduce_mean(tf.cast(first == second, "float32")) < 0.6


@pytest.fixture
def drawn(monkeypatch):
    """Where each replica, which runs in a thread of its own, notes what it drops."""
    notes = threading.local()
    dropout = keras.random.dropout

    def noted(*args, **kwargs):
        y = dropout(*args, **kwargs)
        notes.kept.append(y != 0)
        return y

    monkeypatch.setattr(keras.random, "dropout", noted)
    return notes


def trained_on_equal_rows(strategy, make, drawn, calls):
    """Returns [call][replica] of outputs and of masks; both replicas get one input."""
    keras.utils.set_random_seed(3)
    with strategy.scope():
        layer = make()
        layer.build(cases.FLOATS.shape)

    def replica(training):
        drawn.kept = []
        return layer(tf.constant(cases.FLOATS), training=training), list(drawn.kept)

    run = tf.function(
        lambda training: strategy.run(replica, args=(training,)), autograph=False
    )
    return [
        list(zip(*map(strategy.experimental_local_results, [y, *kept]), strict=True))
        for y, kept in (run(training) for training in calls)
    ]


@pytest.mark.parametrize("name", sorted(cases.DRAWS))
def test_replicas_draw_masks_of_their_own(name, strategy, drawn):
    make, count = cases.DRAWS[name]
    calls = (True, True, False)
    first, second, still = trained_on_equal_rows(strategy, make, drawn, calls)
    # Weights and rows are equal, so what differs was drawn.
    assert_same(still[0], still[1])
    masks = [replica[1:] for call in (first, second) for replica in call]
    assert [len(kept) for kept in masks] == 4 * [count]
    for one, other in itertools.combinations(masks, 2):
        for a, b in zip(one, other, strict=True):
            assert 0.1 < np.mean(np.equal(a, b)) < 0.9
    again = trained_on_equal_rows(strategy, make, drawn, calls[:2])
    assert_same(again, [first, second])


def test_model_on_two_replicas_is_on_one(config, strategy):
    with strategy.scope():
        model = models.build(config)
    (joined,) = on_two_replicas(strategy, model, IDS)
    assert_same(joined, model(IDS), rtol=1e-4, atol=1e-5)


def test_padded_model_on_two_replicas_is_on_one(padded, strategy):
    with strategy.scope():
        model = models.build(padded.config)
    joined = on_two_replicas(strategy, model, padded.inputs)
    expected = tf.nest.flatten(model(padded.inputs))
    assert_same(joined, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", sorted(cases.PADDED_MODELS))
def test_training_draws_random_numbers(name, built):
    padded, model = cases.PADDED_MODELS[name], built[name]
    quiet, noisy = (
        padded.named(model(padded.inputs, training=training))
        for training in (False, True)
    )
    floats = [name for name in quiet if quiet[name].dtype == "float32"]
    assert floats and all((noisy[name] != quiet[name]).any() for name in floats)
