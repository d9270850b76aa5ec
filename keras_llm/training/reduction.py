"""What it takes to sum gradients over the replicas."""

import statistics
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import tensorflow as tf

_TIMES = 3  # Of which the median counts; one more before to warm up.


class Reduction(NamedTuple):
    """The reduction of one step, measured by itself.

    Attributes:
        replicas: N, over which gradients are summed.
        num_bytes: That each replica gives, and gets back summed. In a ring it sends
            2 (N - 1) / N times as many.
        seconds: From the call to the sums.
    """

    replicas: int
    num_bytes: int
    seconds: float

    def describe(self) -> str:
        """Returns both in words.

        >>> Reduction(replicas=2, num_bytes=3 * 2**20, seconds=0.0042).describe()
        'a step sums 3.0 MiB of gradients over 2 replicas, which by itself takes 4.2 ms'
        """
        size, time_ms = self.num_bytes / 2**20, self.seconds * 1e3
        return (
            f"a step sums {size:.1f} MiB of gradients over {self.replicas} replicas, "
            f"which by itself takes {time_ms:.1f} ms"
        )


def measure_reduction(
    strategy: tf.distribute.Strategy, weights: Sequence[Any]
) -> Reduction | None:
    """Sums values of the gradients' shapes as a step does; None for one replica.

    Every worker has to call it, since each waits for the others.

    Args:
        strategy: The run's.
        weights: What gradients are taken of.

    >>> measure_reduction(tf.distribute.get_strategy(), [])
    """
    if strategy.num_replicas_in_sync == 1 or not weights:
        return None
    shapes = [tuple(weight.shape) for weight in weights]

    def of_replica():
        context = tf.distribute.get_replica_context()
        gradients = [tf.zeros(shape) for shape in shapes]
        sums = context.all_reduce(tf.distribute.ReduceOp.SUM, gradients)
        # Of each a value: what nobody asks for is not computed.
        return tf.add_n([tf.reshape(value, [-1])[0] for value in sums])

    reduced = tf.function(lambda: strategy.run(of_replica), autograph=False)
    strategy.experimental_local_results(reduced())[0].numpy()
    times = []
    for _ in range(_TIMES):
        begun = time.perf_counter()
        strategy.experimental_local_results(reduced())[0].numpy()
        times.append(time.perf_counter() - begun)
    seconds = statistics.median(times)
    num_bytes = sum(tf.TensorShape(s).num_elements() for s in shapes)
    replicas = strategy.num_replicas_in_sync
    return Reduction(replicas, num_bytes * tf.float32.size, seconds)
