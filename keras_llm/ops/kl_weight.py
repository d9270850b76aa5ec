"""The weight of the KL as a function of the step: schedules against collapse.

Early in training a decoder of text learns to do without the latent, and the KL term
then pulls the posterior onto the prior for good. A weight that starts low lets the
encoder say something first.

Every function takes the step, counted from 0, as an int or an int tensor of any
shape, in a graph too, and returns float32 of that shape.
"""

from keras import ops

from keras_llm.core import checks


def constant(step, peak=1.0):
    """Returns `peak` at every step.

    >>> float(constant(7, peak=0.5))
    0.5
    """
    checks.check_not_negative("peak", peak)
    return peak * ops.ones_like(_count(step))


def linear(step, steps, peak=1.0):
    """Returns a weight that rises from 0 to `peak` over `steps` and stays there.

    >>> [float(linear(step, steps=4)) for step in (0, 1, 4, 9)]
    [0.0, 0.25, 1.0, 1.0]
    """
    checks.check_positive("steps", steps)
    checks.check_not_negative("peak", peak)
    return peak * ops.minimum(_count(step) / steps, 1.0)


def cyclical(step, steps, cycles=4, rising=0.5, peak=1.0):
    """Returns a weight that rises from 0 to `peak` once in each of several cycles.

    Within a cycle of steps / cycles it rises linearly for the share `rising`, then
    stays at `peak`. After `steps` it stays there for good.

    Args:
        step: The step, from 0.
        steps: Steps of all cycles together.
        cycles: M, their number.
        rising: R, above 0 and at most 1.
        peak: The weight at the top.

    Raises:
        ValueError: A number outside its range.

    Source: Fu et al. 2019, https://arxiv.org/abs/1903.10145.

    >>> [float(cyclical(step, steps=8, cycles=2)) for step in (0, 1, 2, 3, 4, 5, 8)]
    [0.0, 0.5, 1.0, 1.0, 0.0, 0.5, 1.0]
    """
    checks.check_positive("cycles", cycles)
    checks.check_positive("steps", steps)
    checks.check_not_negative("peak", peak)
    if not 0 < rising <= 1:
        raise ValueError(
            "`rising` must be above 0 and at most 1: it is the share of a cycle in "
            f"which the weight rises. Received: rising={rising}."
        )
    count = _count(step)
    # Whole numbers until the end: a remainder of rounded shares would slip a cycle.
    within = ops.mod(count * cycles, float(steps)) / steps
    weight = ops.minimum(within / rising, 1.0)
    return peak * ops.where(count < steps, weight, 1.0)


def sigmoid(step, middle, width, peak=1.0):
    """Returns peak / (1 + exp((middle - step) / width)).

    Args:
        step: The step, from 0.
        middle: The step at which the weight is half its peak.
        width: Steps in which its odds grow by e: from `middle` - 3 `width` to
            `middle` + 3 `width` it goes from 5 % to 95 %.
        peak: The weight at the end.

    Raises:
        ValueError: `width` is not positive, or `middle` or `peak` negative.

    Source: Bowman et al. 2016, section 3.1 and figure 2,
    https://arxiv.org/abs/1511.06349.

    >>> round(float(sigmoid(100, middle=100, width=20)), 3)
    0.5
    """
    checks.check_positive("width", width)
    checks.check_not_negative("middle", middle)
    checks.check_not_negative("peak", peak)
    return peak * ops.sigmoid((_count(step) - middle) / width)


def _count(step):
    return ops.cast(step, "float32")
