"""What a run computes and how fast this device could, to judge its speed by."""

import functools
import time
from typing import Any

import tensorflow as tf

from keras_llm import models
from keras_llm.training.experiment import Experiment
from keras_llm.training.replicas import workers

_SECONDS = 0.5


def flops_per_token(config: Any, experiment: Experiment) -> float:
    """Returns the floating-point operations that training takes per token.

    Those of `models.flops_per_token`; beside an adapter two thirds of them, since of
    the backward pass that of the inputs is left: a kernel's gradient is not taken, and
    the adapter's own products are small beside it.

    Args:
        config: The model's, with its vocabulary filled in.
        experiment: The run's.
    """
    flops = models.flops_per_token(
        config,
        experiment.data.context,
        # What has targets beside sources counts the tokens of both.
        getattr(experiment.task, "target_context", None),
    )
    return flops if experiment.adapter is None else flops * 2 / 3


def measure_peak_flops(dtype: str, size: int = 2_048) -> float:
    """Returns the floating-point operations a second of a square product.

    The best of the products that fit into half a second, after one to warm up: an
    attainable peak, unlike a data sheet's.

    Args:
        dtype: Of the operands; a mixed policy's compute dtype.
        size: Rows and columns.

    >>> measure_peak_flops("float32", size=64) > 1e6
    True
    """
    dtype = dtype.removeprefix("mixed_")
    matrix = tf.cast(tf.random.stateless_uniform((size, size), (1, 2)), dtype)
    product = tf.function(lambda a: tf.matmul(a, a)[0, 0], autograph=False)
    product(matrix).numpy()
    best, end = float("inf"), time.perf_counter() + _SECONDS
    while (start := time.perf_counter()) < end:
        product(matrix).numpy()
        best = min(best, time.perf_counter() - start)
    return 2.0 * size**3 / best


@functools.cache
def peak_flops(dtype: str) -> float:
    """Returns `measure_peak_flops(dtype)`, measured once in a process."""
    return measure_peak_flops(dtype)


def number_of_peaks(strategy: tf.distribute.Strategy) -> int:
    """Returns how many times a strategy has what one process measures of one device.

    Replicas on a CPU share its cores; workers have each their own, or their share.
    """
    if tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("TPU"):
        return strategy.num_replicas_in_sync
    return workers(strategy).number
