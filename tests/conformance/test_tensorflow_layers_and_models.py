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


def saved_and_loaded(function, x, tracked, folder):
    module = tf.Module()
    module.tracked = tracked
    spec = tf.nest.map_structure(
        lambda x: tf.TensorSpec((None, None, *x.shape[2:])[: x.ndim], x.dtype), x
    )
    module.serve = tf.function(function, input_signature=[spec], autograph=False)
    tf.saved_model.save(module, str(folder))
    loaded = tf.saved_model.load(str(folder))
    return loaded.serve(x)


def test_layer_as_saved_model(case, tmp_path):
    layer = case.make()
    expected = case.call(layer, case.x)
    function = functools.partial(case.call, layer)
    loaded = saved_and_loaded(function, case.x, layer, tmp_path / "saved")
    assert_same(loaded, expected, rtol=1e-4, atol=1e-6)


def test_model_as_saved_model(config, tmp_path):
    model = models.build(config)
    loaded = saved_and_loaded(model, IDS, model, tmp_path / "saved")
    assert_same(loaded, model(IDS), rtol=1e-4, atol=1e-6)


def test_padded_model_as_saved_model(padded, tmp_path):
    model = models.build(padded.config)
    loaded = saved_and_loaded(model, padded.inputs, model, tmp_path / "saved")
    expected = padded.named(model(padded.inputs))
    assert_same(padded.named(loaded), expected, rtol=1e-4, atol=1e-6)


def test_gradients_reach_every_weight(config):
    check_gradients(models.build(config), IDS)


def test_gradients_reach_every_weight_of_a_padded_model(padded):
    check_gradients(models.build(padded.config), padded.inputs)


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
    again = trained_on_equal_rows(strategy, make, drawn, calls)
    assert_same(again, [first, second, still])


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


def test_training_draws_random_numbers(padded):
    model = models.build(padded.config)
    quiet, noisy = (
        padded.named(model(padded.inputs, training=training))
        for training in (False, True)
    )
    floats = [name for name in quiet if quiet[name].dtype == "float32"]
    assert floats and all((noisy[name] != quiet[name]).any() for name in floats)
