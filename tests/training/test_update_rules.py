"""Every rule against a float64 loop written from its paper, and against Keras'."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_llm.training import Optimizer, TrainConfig, Update

SHAPES = [(3, 5), (7,), (2, 3, 5), ()]
RATES, SCALES = [0.1, 0.05, 0.2, 0.1, 0.03], [1.0, 0.5, 0.1, 2.0, 1.0]


def lion(config):
    def steps(gradients):
        mean = 0.0
        for rate, g in gradients:
            yield rate * np.sign(config.beta1 * mean + (1 - config.beta1) * g)
            mean = config.beta2 * mean + (1 - config.beta2) * g

    return steps


def momentum(config):
    """The velocity as a sum over all gradients so far, each shrunk by its age."""

    def steps(gradients):
        seen = []
        for rate, g in gradients:
            seen.insert(0, g)
            velocity = sum(config.momentum**age * old for age, old in enumerate(seen))
            ahead = g + config.momentum * velocity
            yield rate * (ahead if config.nesterov else velocity)

    return steps


def adafactor(_):
    """The factored moment as an outer product over the sum, as the paper prints it."""

    def steps(gradients):
        rows = columns = whole = 0.0
        for t, (rate, g) in enumerate(gradients, start=1):
            decay, square = 1 - t**-0.8, np.square(g) + 1e-30
            if g.ndim < 2:
                whole = decay * whole + (1 - decay) * square
                moment = whole
            else:
                rows = decay * rows + (1 - decay) * square.sum(-1)
                columns = decay * columns + (1 - decay) * square.sum(-2)
                outer = np.einsum("...i,...j->...ij", rows, columns)
                moment = outer / rows.sum(-1)[..., None, None]
            u = g / np.sqrt(moment)
            yield rate * u / max(1.0, np.linalg.norm(u) / np.sqrt(u.size))

    return steps


CASES = {
    "lion": (TrainConfig(optimizer="lion", beta2=0.8, weight_decay=0.3), lion),
    "momentum": (TrainConfig(optimizer="sgd", weight_decay=0.3), momentum),
    "nesterov": (
        TrainConfig(optimizer="sgd", momentum=0.6, nesterov=True, weight_decay=0.3),
        momentum,
    ),
    "plain": (
        TrainConfig(optimizer="sgd", momentum=0.0, weight_decay=0.3, ema_decay=0.5),
        momentum,
    ),
    "adafactor": (
        TrainConfig(optimizer="adafactor", weight_decay=0.3, ema_decay=0.5),
        adafactor,
    ),
}


def draw(seed):
    rng = np.random.default_rng(seed)
    weights = [rng.normal(size=shape).astype("float32") for shape in SHAPES]
    gradients = [[rng.normal(size=shape) for shape in SHAPES] for _ in RATES]
    return weights, gradients


def apply_all(optimizer, gradients, compiled):
    def apply(grads, rate, scale):
        optimizer.apply(
            tf.distribute.get_strategy(),
            grads,
            Update(rate, scale, tf.constant(True)),
            fuse=lambda f: tf.function(f, jit_compile=True) if compiled else f,
        )

    apply = tf.function(apply) if compiled else apply
    for step, rate, scale in zip(gradients, RATES, SCALES, strict=True):
        step = [tf.constant(g, tf.float32) for g in step]
        apply(step, tf.constant(rate), tf.constant(scale))


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("name", CASES)
def test_equals_float64_numpy(name, compiled):
    config, reference = CASES[name]
    starts, gradients = draw(0)
    weights = [keras.Variable(start) for start in starts]
    optimizer = Optimizer(weights, config)
    apply_all(optimizer, gradients, compiled)
    for i, start in enumerate(starts):
        own = [(r, s * g[i]) for r, s, g in zip(RATES, SCALES, gradients, strict=True)]
        expected = average = np.float64(start)
        decay = config.weight_decay if start.ndim >= 2 else 0.0
        for rate, step in zip(RATES, reference(config)(own), strict=True):
            expected = expected * (1 - rate * decay) - step
            average = 0.5 * average + 0.5 * expected
        np.testing.assert_allclose(weights[i], expected, rtol=2e-5, atol=1e-6)
        if config.ema_decay:
            slot = optimizer.slots["average"][i]
            np.testing.assert_allclose(slot, average, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "peer"),
    [
        ("lion", lambda: keras.optimizers.Lion(0.05, 0.9, 0.8)),
        ("momentum", lambda: keras.optimizers.SGD(0.05, momentum=0.9)),
        ("nesterov", lambda: keras.optimizers.SGD(0.05, momentum=0.6, nesterov=True)),
    ],
)
def test_equals_keras_at_one_rate(name, peer):
    starts, gradients = draw(1)
    ours, theirs = ([keras.Variable(s) for s in starts] for _ in range(2))
    optimizer = Optimizer(ours, CASES[name][0].replace(weight_decay=0.0))
    other = peer()
    for step in gradients:
        step = [tf.constant(g, tf.float32) for g in step]
        update = Update(tf.constant(0.05), tf.constant(1.0), tf.constant(True))
        optimizer.apply(tf.distribute.get_strategy(), step, update)
        other.apply(step, theirs)
    for mine, other_weight in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, other_weight, rtol=1e-5, atol=1e-6)


def test_a_matrix_of_adafactor_needs_a_row_and_a_column():
    weights = [keras.Variable(np.ones(shape, "float32")) for shape in SHAPES]
    slots = Optimizer(weights, TrainConfig(optimizer="adafactor")).slots
    shapes = {
        kind: [None if s is None else tuple(s.shape) for s in of_kind]
        for kind, of_kind in slots.items()
    }
    assert shapes == {
        "row_moment": [(3,), None, (2, 3), None],
        "column_moment": [(5,), None, (2, 5), None],
        "second_moment": [None, (7,), None, ()],
    }


@pytest.mark.parametrize("name", CASES)
def test_a_refused_update_leaves_every_bit(name):
    starts, gradients = draw(2)
    weights = [keras.Variable(start) for start in starts]
    optimizer = Optimizer(weights, CASES[name][0])
    apply_all(optimizer, gradients, compiled=False)

    def everything():
        kept = [s for kind in optimizer.slots.values() for s in kind if s is not None]
        return [np.asarray(value).tobytes() for value in [*weights, *kept]]

    before = everything()
    spoilt = [tf.fill(shape, np.float32(np.nan)) for shape in SHAPES]
    refused = Update(tf.constant(0.1), tf.constant(1.0), tf.constant(False))
    optimizer.apply(tf.distribute.get_strategy(), spoilt, refused)
    assert everything() == before
