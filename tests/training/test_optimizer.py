import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_llm.training import Optimizer, TrainConfig, Update

SHAPES = [(3, 5), (7,), (2, 3, 5), ()]


def variables(rng):
    return [keras.Variable(rng.normal(size=s).astype("float32")) for s in SHAPES]


def update(rate=0.1, scale=1.0, accepted=True):
    return Update(tf.constant(rate), tf.constant(scale), tf.constant(accepted))


def reference(weights, gradients, config, rates, scales, ema=None):
    """AdamW in float64, decay as the factor 1 - rate * decay on the old weight."""
    first = [np.zeros(w.shape) for w in weights]
    second = [np.zeros(w.shape) for w in weights]
    average = [w.copy() for w in weights]
    for t, (rate, scale) in enumerate(zip(rates, scales, strict=True), start=1):
        for i, w in enumerate(weights):
            g = gradients[t - 1][i] * scale
            first[i] = config.beta1 * first[i] + (1 - config.beta1) * g
            second[i] = config.beta2 * second[i] + (1 - config.beta2) * g**2
            direction = (first[i] / (1 - config.beta1**t)) / (
                np.sqrt(second[i] / (1 - config.beta2**t)) + config.epsilon
            )
            shrink = 1 - rate * config.weight_decay if w.ndim >= 2 else 1
            size = max(np.linalg.norm(w) / np.sqrt(w.size), 1e-3)
            share = size if config.relative_rate else 1
            weights[i] = w * shrink - rate * share * direction
            if ema is not None:
                average[i] = ema * average[i] + (1 - ema) * weights[i]
    return weights, average


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("compiled", [False, True])
def test_equals_float64_numpy(compiled, relative):
    rng = np.random.default_rng(0)
    config = TrainConfig(
        weight_decay=0.3, beta2=0.9, epsilon=1e-3, ema_decay=0.7, relative_rate=relative
    )
    weights = variables(rng)
    weights[1].assign(keras.ops.zeros(7))  # Of no size, it moves all the same.
    start = [np.float64(keras.ops.convert_to_numpy(w)) for w in weights]
    optimizer = Optimizer(weights, config)
    gradients = [[rng.normal(size=s) for s in SHAPES] for _ in range(4)]
    rates, scales = [0.1, 0.05, 0.2, 0.1], [1.0, 0.5, 0.1, 2.0]

    def apply(grads, rate, scale):
        strategy = tf.distribute.get_strategy()
        optimizer.apply(
            strategy,
            grads,
            Update(rate, scale, tf.constant(True)),
            fuse=lambda f: tf.function(f, jit_compile=True) if compiled else f,
        )

    apply = tf.function(apply) if compiled else apply
    for step, rate, scale in zip(gradients, rates, scales, strict=True):
        apply(
            [tf.constant(g, tf.float32) for g in step],
            tf.constant(rate),
            tf.constant(scale),
        )
    expected, average = reference(start, gradients, config, rates, scales, ema=0.7)
    for weight, wanted in zip(weights, expected, strict=True):
        np.testing.assert_allclose(weight, wanted, rtol=1e-5, atol=1e-6)
    for slot, wanted in zip(optimizer.slots["average"], average, strict=True):
        np.testing.assert_allclose(slot, wanted, rtol=1e-5, atol=1e-6)


def test_decay_holds_back_matrices_only():
    rng = np.random.default_rng(1)
    weights = variables(rng)
    before = [keras.ops.convert_to_numpy(w) for w in weights]
    optimizer = Optimizer(weights, TrainConfig(weight_decay=0.5))
    zeros = [tf.zeros(s) for s in SHAPES]
    optimizer.apply(tf.distribute.get_strategy(), zeros, update(rate=0.1))
    for weight, old in zip(weights, before, strict=True):
        shrink = 0.95 if old.ndim >= 2 else 1.0
        np.testing.assert_allclose(weight, old * shrink, rtol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_refused_update_leaves_every_bit(bad):
    rng = np.random.default_rng(2)
    weights = variables(rng)
    optimizer = Optimizer(weights, TrainConfig(ema_decay=0.9))
    strategy = tf.distribute.get_strategy()
    good = [tf.constant(rng.normal(size=s), tf.float32) for s in SHAPES]
    optimizer.apply(strategy, good, update())

    def everything():
        slots = [s.numpy() for slot in optimizer.slots.values() for s in slot]
        weights_now = [keras.ops.convert_to_numpy(w) for w in weights]
        return [*weights_now, *slots, optimizer.updates.numpy()]

    before = everything()
    spoilt = [tf.fill(s, np.float32(bad)) for s in SHAPES]
    optimizer.apply(strategy, spoilt, update(accepted=False))
    for old, new in zip(before, everything(), strict=True):
        assert old.tobytes() == new.tobytes()


def test_averaged_weights_are_in_place_only_within_the_block():
    weight = keras.Variable(np.ones((2, 2), "float32"))
    optimizer = Optimizer([weight], TrainConfig(ema_decay=0.5, weight_decay=0.0))
    gradient = [tf.ones((2, 2))]
    optimizer.apply(tf.distribute.get_strategy(), gradient, update(rate=0.5))
    assert float(weight[0, 0]) == pytest.approx(0.5)
    with optimizer.averaged():
        assert float(weight[0, 0]) == pytest.approx(0.75)
    assert float(weight[0, 0]) == pytest.approx(0.5)
    assert float(optimizer.slots["average"][0][0, 0]) == pytest.approx(0.75)
