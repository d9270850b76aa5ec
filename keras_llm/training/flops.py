"""How fast this device multiplies matrices, to judge a run's speed by."""

import time

import tensorflow as tf

_SECONDS = 0.5


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
