"""Workers and replicas: who reads which rows, and what is refused."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_llm.core import checks


class Workers(NamedTuple):
    """How many processes train together, and which one this is, from 0."""

    number: int
    place: int

    @property
    def is_chief(self) -> bool:
        """Whether this process writes the run folder."""
        return self.place == 0


def check_strategy(strategy: tf.distribute.Strategy) -> None:
    """Raises ValueError for what would train something else than asked for."""
    refused = (
        tf.distribute.experimental.CentralStorageStrategy,
        tf.distribute.ParameterServerStrategy,
        tf.distribute.experimental.ParameterServerStrategy,
    )
    if isinstance(strategy, refused):
        raise ValueError(
            "Replicas must hold the weights alike and step together. Received: "
            f"{type(strategy).__name__}. Use MirroredStrategy, "
            "MultiWorkerMirroredStrategy or TPUStrategy."
        )
    if keras.distribution.distribution() is not None:
        raise ValueError(
            "`keras.distribution` is ignored by Keras on TensorFlow: the model would "
            "be trained unsharded. Pass a tf.distribute strategy, or train on the JAX "
            f"backend. Received: {keras.distribution.distribution()}."
        )


def workers(strategy: tf.distribute.Strategy) -> Workers:
    """Returns this process's place among the workers of a strategy."""
    resolver = strategy.cluster_resolver
    if resolver is None or not resolver.cluster_spec():
        return Workers(1, 0)
    kinds = [k for k in ("chief", "worker") if k in resolver.cluster_spec().jobs]
    if resolver.task_type not in kinds:
        return Workers(1, 0)
    sizes = {kind: resolver.cluster_spec().num_tasks(kind) for kind in kinds}
    before = kinds[: kinds.index(resolver.task_type)]
    index = sum(sizes[kind] for kind in before) + resolver.task_id
    return Workers(sum(sizes.values()), index)


class Spreader:
    """Gives each local replica its rows of this worker's batches.

    Args:
        strategy: Any but those that `check_strategy` refuses.
        rows: Rows of a global micro-batch; the replicas must divide it.
    """

    def __init__(self, strategy: tf.distribute.Strategy, rows: int):
        replicas = strategy.num_replicas_in_sync
        if rows % replicas:
            raise ValueError(
                "`data.batch_size` must be a multiple of the number of replicas, so "
                f"that each has rows. Received: data.batch_size={rows}, {replicas} "
                "replicas."
            )
        checks.check_positive("batch_size", rows)
        self.strategy = strategy
        self.local = replicas // workers(strategy).number

    def __call__(self, arrays: dict[str, np.ndarray], axis: int) -> dict[str, Any]:
        """Returns the arrays as tensors, or per replica cut along `axis`."""
        if self.strategy.num_replicas_in_sync == 1:
            return {name: tf.constant(array) for name, array in arrays.items()}
        cut = {n: np.split(a, self.local, axis) for n, a in arrays.items()}
        return {
            name: self.strategy.experimental_distribute_values_from_function(
                lambda context, parts=parts: tf.constant(
                    parts[context.replica_id_in_sync_group % self.local]
                )
            )
            for name, parts in cut.items()
        }


def stacked(
    micro_batches: Sequence[Mapping[str, np.ndarray]], steps: int
) -> dict[str, np.ndarray]:
    """Returns the micro-batches of S steps as arrays [S, K, R, ...], K a step.

    >>> rows = [{"weights": np.full((2,), i)} for i in range(6)]
    >>> stacked(rows, steps=3)["weights"].shape
    (3, 2, 2)
    """
    first, number = micro_batches[0], len(micro_batches) // steps
    return {
        name: np.stack([batch[name] for batch in micro_batches]).reshape(
            steps, number, *first[name].shape
        )
        for name in first
    }
