import math

import numpy as np
import pytest
import tensorflow as tf

from keras_llm.training import TrainConfig, learning_rate


def formula(config, step):
    """The documented formulas, one scalar at a time in Python floats."""
    s = step + 1
    peak, end = config.learning_rate, config.final_learning_rate
    if s <= config.warmup_steps:
        return peak * s / config.warmup_steps
    done = (s - config.warmup_steps) / (config.steps - config.warmup_steps)
    if config.schedule == "constant":
        return peak
    if config.schedule == "cosine":
        return end + (peak - end) * 0.5 * (1 + math.cos(math.pi * done))
    if config.schedule == "linear":
        return peak * (1 - done) + end * done
    if config.schedule == "inverse_sqrt":
        return peak * math.sqrt(max(config.warmup_steps, 1) / s)
    decay = config.decay_steps
    left = config.steps - s
    return peak if left >= decay else end + (peak - end) * left / decay


@pytest.mark.parametrize(
    "schedule", ["constant", "cosine", "linear", "inverse_sqrt", "warmup_stable_decay"]
)
@pytest.mark.parametrize("warmup", [0, 7])
def test_every_step_follows_the_formula(schedule, warmup):
    config = TrainConfig(
        steps=53,
        schedule=schedule,
        warmup_steps=warmup,
        decay_steps=11 if schedule == "warmup_stable_decay" else 0,
        learning_rate=0.3,
        final_learning_rate=0.02,
    )
    rate = learning_rate(config)
    rates = [float(rate(tf.constant(step, tf.int64))) for step in range(53)]
    np.testing.assert_allclose(
        rates, [formula(config, step) for step in range(53)], rtol=2e-6
    )


def test_nothing_is_trained_at_rate_zero_and_the_last_step_is_at_the_end():
    config = TrainConfig(steps=10, warmup_steps=4, final_learning_rate=1e-5)
    rate = learning_rate(config)
    assert float(rate(tf.constant(0))) == pytest.approx(config.learning_rate / 4)
    assert float(rate(tf.constant(9))) == pytest.approx(1e-5)


def test_steps_beyond_the_end_keep_the_final_rate():
    rate = learning_rate(TrainConfig(steps=10, final_learning_rate=1e-5))
    assert float(rate(tf.constant(40))) == pytest.approx(1e-5)
