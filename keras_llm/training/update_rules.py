"""How a weight moves: from its scaled gradient g and its slots to a step.

A rule names the slots of a weight and their first values, works out once a step the
scalars that all weights share, and gives the step that is subtracted from a weight
with its new slots. t counts accepted updates, the one at hand included. Decay,
relative rates, averages and refused steps are the optimizer's, for every rule alike.
"""

from collections.abc import Sequence
from typing import Protocol

import tensorflow as tf

from keras_llm.training.config import TrainConfig

Tensors = Sequence[tf.Tensor]


class UpdateRule(Protocol):
    """What the optimizer asks of a rule."""

    def slots(self, weight: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the first values of a weight's slots, by kind."""

    def scalars(self, rate: tf.Tensor, t: tf.Tensor) -> Tensors:
        """Returns what a step's weights share; `t` is float32."""

    def step(self, g: tf.Tensor, slots: Tensors, scalars: Tensors) -> tuple:
        """Returns what is subtracted from the weight, and its new slots."""


class Adam:
    """Adam: the mean gradient over the root of its mean square.

        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        step = rate * (m / (1 - beta1**t)) / (sqrt(v / (1 - beta2**t)) + epsilon)

    Source: Kingma and Ba 2015, algorithm 1, https://arxiv.org/abs/1412.6980.

    >>> rule = Adam(TrainConfig())
    >>> g = tf.constant([4.0, -0.5])
    >>> scalars = rule.scalars(tf.constant(0.1), tf.constant(1.0))
    >>> step, _ = rule.step(g, list(rule.slots(g).values()), scalars)
    >>> step.numpy().round(4)  # The first step is as long for every gradient.
    array([ 0.1, -0.1], dtype=float32)
    """

    def __init__(self, config: TrainConfig):
        self.beta1, self.beta2 = config.beta1, config.beta2
        self.epsilon = config.epsilon

    def slots(self, weight):
        """Returns the two moments, both zero."""
        zeros = tf.zeros_like(weight)
        return {"first_moment": zeros, "second_moment": zeros}

    def scalars(self, rate, t):
        """Returns the rate and the root with the moments' corrections worked in."""
        first, second = 1.0 - tf.pow(self.beta1, t), 1.0 - tf.pow(self.beta2, t)
        return [rate / first, tf.math.rsqrt(second)]

    def step(self, g, slots, scalars):
        """Returns the step and the new moments."""
        (first, second), (rate, root) = slots, scalars
        first = first + (1.0 - self.beta1) * (g - first)
        second = second + (1.0 - self.beta2) * (g * g - second)
        step = rate * first / (tf.sqrt(second) * root + self.epsilon)
        return step, [first, second]


class Lion:
    """Lion: the sign of a mean gradient; every number moves by the rate.

        step = rate * sign(beta1 * m + (1 - beta1) * g)
        m = beta2 * m + (1 - beta2) * g

    Its authors take a rate a third to a tenth of Adam's, a decay as much larger, and
    beta1=0.9, beta2=0.99.

    Source: Chen et al. 2023, algorithm 2, https://arxiv.org/abs/2302.06675.
    """

    def __init__(self, config: TrainConfig):
        self.beta1, self.beta2 = config.beta1, config.beta2

    def slots(self, weight):
        """Returns the mean gradient, zero."""
        return {"first_moment": tf.zeros_like(weight)}

    def scalars(self, rate, t):
        """Returns the rate."""
        del t
        return [rate]

    def step(self, g, slots, scalars):
        """Returns the step and the new mean."""
        (mean,), (rate,) = slots, scalars
        step = rate * tf.sign(mean + (1.0 - self.beta1) * (g - mean))
        return step, [mean + (1.0 - self.beta2) * (g - mean)]


class Momentum:
    """Stochastic gradient descent with momentum, or with Nesterov's look ahead.

        m = momentum * m + g
        step = rate * m,  or  rate * (g + momentum * m)

    Source: Sutskever et al. 2013, eq. 1 to 4, with the rate outside of m, so that a
    falling rate holds for past gradients too,
    https://proceedings.mlr.press/v28/sutskever13.html.
    """

    def __init__(self, config: TrainConfig):
        self.momentum, self.nesterov = config.momentum, config.nesterov

    def slots(self, weight):
        """Returns the velocity, zero; none where there is no momentum."""
        return {"velocity": tf.zeros_like(weight)} if self.momentum else {}

    def scalars(self, rate, t):
        """Returns the rate."""
        del t
        return [rate]

    def step(self, g, slots, scalars):
        """Returns the step and the new velocity."""
        (rate,) = scalars
        if not slots:
            return rate * g, []
        velocity = self.momentum * slots[0] + g
        ahead = g + self.momentum * velocity if self.nesterov else velocity
        return rate * ahead, [velocity]


class Adafactor:
    """Adafactor without a first moment: a matrix's mean squares by rows and columns.

    With s = g**2 + 1e-30 and b = 1 - t**-0.8:

        r = b * r + (1 - b) * mean(s over columns)
        c = b * c + (1 - b) * mean(s over rows)
        u = g / sqrt(r c / mean(r))
        step = rate * u / max(1, RMS(u))

    Of a vector v = b * v + (1 - b) * s, and u = g / sqrt(v). A matrix of M by N needs
    M + N numbers instead of Adam's 2MN. More axes than two count as a stack of
    matrices. `train.relative_rate` gives the paper's relative steps.

    Source: Shazeer and Stern 2018, algorithms 4 and 5 (clipping at 1),
    https://arxiv.org/abs/1804.04235.
    """

    least_square = 1e-30  # Added to each square.

    def slots(self, weight):
        """Returns the moments of rows and columns, or a vector's own, zero."""
        shape = weight.shape
        if len(shape) < 2:
            return {"second_moment": tf.zeros_like(weight)}
        return {
            "row_moment": tf.zeros(shape[:-1]),
            "column_moment": tf.zeros([*shape[:-2], shape[-1]]),
        }

    def scalars(self, rate, t):
        """Returns the rate and the decay of the moments."""
        return [rate, 1.0 - tf.pow(t, -0.8)]

    def step(self, g, slots, scalars):
        """Returns the step and the new moments."""
        rate, decay = scalars
        square = g * g + self.least_square
        if len(slots) == 1:
            new = [slots[0] + (1.0 - decay) * (square - slots[0])]
            u = g * tf.math.rsqrt(new[0])
        else:
            means = [tf.reduce_mean(square, axis) for axis in (-1, -2)]
            new = [
                old + (1.0 - decay) * (mean - old)
                for old, mean in zip(slots, means, strict=True)
            ]
            rows, columns = new
            rows = rows / tf.reduce_mean(rows, -1, keepdims=True)
            u = (
                g
                * tf.math.rsqrt(rows)[..., None]
                * tf.math.rsqrt(columns)[..., None, :]
            )
        length = tf.sqrt(tf.reduce_mean(tf.square(u)))
        return rate * u / tf.maximum(1.0, length), new


def update_rule(config: TrainConfig) -> UpdateRule:
    """Returns the rule that a config names."""
    if config.optimizer == "adamw":
        return Adam(config)
    if config.optimizer == "lion":
        return Lion(config)
    if config.optimizer == "sgd":
        return Momentum(config)
    return Adafactor()
