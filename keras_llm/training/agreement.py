"""What the workers of a run tell one another beside their gradients."""

import contextlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_llm.training.replicas import workers

_GRANULE = 1_024  # Texts are padded to multiples of it: few lengths, few traces.


class OtherWorkerError(RuntimeError):
    """Another worker refused or failed; the message says which, and its reason."""


class LostWorkerError(RuntimeError):
    """Another worker is gone; a command that meets it exits with `LOST_WORKER`."""


# EX_UNAVAILABLE of sysexits.h: all workers are to be started again, with --resume.
LOST_WORKER = 69

_OF_LOST_WORKERS = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.DeadlineExceededError,
)


class Agreement:
    """Sums, texts and refusals of all workers, the same at each of them.

    Every worker must make the same calls in the same order: each waits for the others.
    Where a run has one worker nothing is sent, and every answer is its own.

    Args:
        strategy: The run's, which the workers share.

    >>> alone = Agreement(tf.distribute.get_strategy())
    >>> alone.total([0.5, 2.0]), alone.gather("ready")
    ([0.5, 2.0], ['ready'])
    """

    def __init__(self, strategy: tf.distribute.Strategy):
        self.team = workers(strategy)
        self._strategy = strategy
        self._local = strategy.num_replicas_in_sync // self.team.number
        self._sum = tf.function(self._replicated_sum, autograph=False)

    def total(self, values: Sequence[float]) -> list[float]:
        """Returns the sums of each value over the workers."""
        if self.team.number == 1:
            return list(values)
        return self._summed(np.array(values, "float64")).tolist()

    def mean(self, value: float) -> float:
        """Returns the mean of a value over the workers."""
        return self.total([value])[0] / self.team.number

    def any(self, answer: bool) -> bool:
        """Returns whether one worker at least says yes."""
        return self.total([float(answer)])[0] > 0

    def gather(self, text: str) -> list[str]:
        """Returns the texts of all workers, in their order."""
        if self.team.number == 1:
            return [text]
        mine = np.frombuffer(text.encode(), "uint8")
        lengths = np.zeros(self.team.number)
        lengths[self.team.place] = len(mine)
        lengths = self._summed(lengths).astype(int)
        if not lengths.any():
            return [""] * self.team.number
        longest = -(-lengths.max() // _GRANULE) * _GRANULE
        table = np.zeros((self.team.number, longest))
        table[self.team.place, : len(mine)] = mine
        rows = self._summed(table).astype("uint8")
        return [
            row[:n].tobytes().decode() for row, n in zip(rows, lengths, strict=True)
        ]

    def from_chief(self, text: str) -> str:
        """Returns the chief's text; what the others give is not looked at."""
        return self.gather(text if self.team.is_chief else "")[0]

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Ends the block at all workers or, where it fails at one, fails at all.

        Raises:
            OtherWorkerError: The block failed elsewhere; where it failed here, its
                own error goes on.
        """
        try:
            yield
        except Exception as error:
            self.gather(f"{type(error).__name__}: {error}")
            raise
        for place, reason in enumerate(self.gather("")):
            if reason:
                raise OtherWorkerError(
                    "Workers go on together or not at all. Received from worker "
                    f"{place}: {reason}"
                )

    def check_same(self, what: Mapping[str, Any]) -> None:
        """Raises ValueError, naming the first field, unless all workers agree.

        Args:
            what: Values of JSON by name, the same names at every worker.
        """
        texts = self.gather(json.dumps(what, sort_keys=True))
        everyone = [json.loads(text) for text in texts]
        for place, values in enumerate(everyone[1:], start=1):
            for name in sorted(everyone[0].keys() | values.keys()):
                first, other = everyone[0].get(name), values.get(name)
                if first != other:
                    raise ValueError(
                        "All workers train the same model on the same text. Received: "
                        f"{name}={first!r} at worker 0, {name}={other!r} at worker "
                        f"{place}. Give all of them the same config, flags and files."
                    )

    @contextlib.contextmanager
    def lost_worker_named(self) -> Iterator[None]:
        """Says in the block what TensorFlow's errors of a broken connection mean.

        Raises:
            LostWorkerError: Another worker is gone.
        """
        try:
            yield
        except _OF_LOST_WORKERS as error:
            if self.team.number == 1:
                raise
            raise LostWorkerError(
                "A run goes on only while all of its workers do. Received: no answer "
                f"from {_lost(error.message)}. Start all workers again with `--resume`."
            ) from error

    def _summed(self, values: np.ndarray) -> np.ndarray:
        def of_replica(context):
            # A worker with several replicas speaks through the first of them.
            speaks = context.replica_id_in_sync_group % self._local == 0
            return tf.constant(values if speaks else np.zeros_like(values))

        parts = self._strategy.experimental_distribute_values_from_function(of_replica)
        return self._sum(parts).numpy()

    def _replicated_sum(self, parts):
        summed = self._strategy.run(_all_reduced, args=(parts,))
        return self._strategy.experimental_local_results(summed)[0]


def _lost(message: str) -> str:
    """Returns which worker an error of TensorFlow's is about."""
    if "CoordinationService/" in message:
        return "worker 0"  # It counts the heartbeats, and did not answer one.
    # Others may be named as whoever reported it: without a replica.
    found = re.search(r"replica:\d+/task:(\d+)", message)
    found = found or re.search(r"task:(\d+)", message)
    return f"worker {found[1]}" if found else "another worker"


def _all_reduced(part):
    context = tf.distribute.get_replica_context()
    # An argument has no device, and where to reduce is read from the value.
    return context.all_reduce(tf.distribute.ReduceOp.SUM, tf.identity(part))
