"""Who reads which rows, and which ways of spreading are refused."""

import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_llm.training import flops, reduction, replicas

CLUSTER = tf.train.ClusterSpec({"chief": ["a:1"], "worker": ["b:1", "c:1"]})


def strategy_of(task_type, task_id, cluster=CLUSTER, count=6):
    resolver = types.SimpleNamespace(
        cluster_spec=lambda: cluster, task_type=task_type, task_id=task_id
    )
    return types.SimpleNamespace(cluster_resolver=resolver, num_replicas_in_sync=count)


@pytest.mark.parametrize(
    ("task_type", "task_id", "place"),
    [("chief", 0, 0), ("worker", 0, 1), ("worker", 1, 2)],
)
def test_workers_are_counted_chief_first(task_type, task_id, place):
    found = replicas.workers(strategy_of(task_type, task_id))
    assert found == (3, place) and found.is_chief == (place == 0)


@pytest.mark.parametrize(
    "strategy",
    [
        strategy_of("evaluator", 0),
        strategy_of(None, None, tf.train.ClusterSpec({})),
        types.SimpleNamespace(cluster_resolver=None),
    ],
    ids=["evaluator", "no cluster", "no resolver"],
)
def test_whoever_is_no_worker_trains_alone(strategy):
    assert replicas.workers(strategy) == (1, 0)


@pytest.mark.parametrize(
    "kind",
    [
        tf.distribute.experimental.CentralStorageStrategy,
        tf.distribute.ParameterServerStrategy,
        tf.distribute.experimental.ParameterServerStrategy,
    ],
)
def test_what_would_not_step_together_is_refused(kind):
    with pytest.raises(ValueError, match=f"{kind.__name__}. Use MirroredStrategy"):
        replicas.check_strategy(object.__new__(kind))


def test_what_keras_would_ignore_is_refused(monkeypatch):
    replicas.check_strategy(tf.distribute.get_strategy())
    monkeypatch.setattr(keras.distribution, "distribution", lambda: "a mesh")
    with pytest.raises(ValueError, match="ignored by Keras .* Received: a mesh"):
        replicas.check_strategy(tf.distribute.get_strategy())


def test_rows_must_divide_among_the_replicas():
    with pytest.raises(ValueError, match="batch_size=8, 6 replicas"):
        replicas.Spreader(strategy_of("chief", 0), 8)
    assert replicas.Spreader(strategy_of("worker", 1), 12).local == 2


def test_a_reduction_is_of_all_gradients(two_replicas):
    with two_replicas.scope():
        weights = [tf.Variable(tf.zeros(shape)) for shape in ((3, 5), (7,), ())]
    found = reduction.measure_reduction(two_replicas, weights)
    assert found.replicas == 2 and found.num_bytes == 4 * (15 + 7 + 1)
    assert found.seconds > 0
    assert reduction.measure_reduction(two_replicas, []) is None
    # Both are on this machine's cores.
    assert flops.number_of_peaks(two_replicas) == 1


def test_each_local_replica_gets_its_rows():
    def distribute(function):
        # Replicas 2 and 3 of 6 are the second worker's.
        contexts = [types.SimpleNamespace(replica_id_in_sync_group=i) for i in (2, 3)]
        return [function(context) for context in contexts]

    strategy = strategy_of("worker", 0)
    strategy.experimental_distribute_values_from_function = distribute
    rows = np.arange(20).reshape(1, 4, 5)
    first, second = replicas.Spreader(strategy, 12)({"x": rows}, axis=1)["x"]
    np.testing.assert_array_equal(first, rows[:, :2])
    np.testing.assert_array_equal(second, rows[:, 2:])
