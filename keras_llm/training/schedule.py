"""Learning rate as a function of the step."""

import math
from collections.abc import Callable

import tensorflow as tf

from keras_llm.training.config import TrainConfig


def learning_rate(config: TrainConfig) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns the function from a step, counted from 0, to its learning rate.

    With peak P, final rate E, W warm-up steps, N steps and s the step counted from
    1 (so that the first step is not wasted at rate 0):

    - s <= W: P * s / W, then, with t = (s - W) / (N - W) from 0 to 1,
    - constant: P
    - cosine: E + (P - E) * (1 + cos(pi * t)) / 2
    - linear: P + (E - P) * t
    - inverse_sqrt: P * sqrt(max(W, 1) / s)
    - warmup_stable_decay: P, then linear to E over the last `decay_steps`

    Args:
        config: Gives the schedule and its numbers.

    Source: cosine: Loshchilov and Hutter 2017, eq. 5,
    https://arxiv.org/abs/1608.03983; inverse square root: Vaswani et al. 2017,
    section 5.3; warm-up, stable, decay: Hu et al. 2024, section 4.2,
    https://arxiv.org/abs/2404.06395.

    >>> config = TrainConfig(steps=4, learning_rate=1.0, schedule="linear")
    >>> rate = learning_rate(config)
    >>> [float(rate(tf.constant(step))) for step in range(4)]
    [0.75, 0.5, 0.25, 0.0]
    """
    peak, end = config.learning_rate, config.final_learning_rate
    warmup, steps = config.warmup_steps, config.steps

    def after_warmup(s):
        t = tf.clip_by_value((s - warmup) / max(steps - warmup, 1), 0.0, 1.0)
        if config.schedule == "cosine":
            return end + (peak - end) * (1.0 + tf.cos(math.pi * t)) / 2.0
        if config.schedule == "linear":
            return peak + (end - peak) * t
        if config.schedule == "inverse_sqrt":
            return peak * tf.sqrt(max(warmup, 1) / s)
        if config.schedule == "warmup_stable_decay":
            left = tf.clip_by_value((steps - s) / config.decay_steps, 0.0, 1.0)
            return end + (peak - end) * left
        return tf.fill(tf.shape(s), peak)

    def rate(step):
        s = tf.cast(step, tf.float32) + 1.0
        rising = peak * s / max(warmup, 1)
        return tf.where(s <= warmup, rising, after_warmup(s))

    return rate
