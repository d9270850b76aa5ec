"""Running statistics of a posterior under two replicas."""

import numpy as np
import tensorflow as tf

from keras_llm.layers import BatchNormPosterior

X = np.random.default_rng(0).normal(size=(2, 11, 5)).astype("float32")  # Replica first.


def test_running_statistics_are_the_mean_over_replicas():
    devices = [device.name for device in tf.config.list_logical_devices("CPU")]
    strategy = tf.distribute.MirroredStrategy(devices)
    with strategy.scope():
        layer = BatchNormPosterior(3, momentum=0.5)
        layer.build((None, 5))

    @tf.function(autograph=False)
    def run():
        def part():
            replica = tf.distribute.get_replica_context().replica_id_in_sync_group
            return layer(tf.gather(X, replica), training=True)[1]

        return strategy.run(part)

    for mean in strategy.experimental_local_results(run()):
        np.testing.assert_allclose(np.mean(mean, axis=0), np.zeros(3), atol=1e-5)
    raw = X @ layer.mean.get_weights()[0]
    each = 0.5 * raw.mean(1)
    np.testing.assert_allclose(layer.moving_mean, each.mean(0), atol=1e-6)
    each = 0.5 + 0.5 * raw.var(1)
    np.testing.assert_allclose(layer.moving_variance, each.mean(0), atol=1e-6)
    # A folder's weights are loaded into every replica alike.
    layer.moving_mean.assign(np.array([1.0, 2.0, 3.0]))
    for own in strategy.experimental_local_results(layer.moving_mean.value):
        np.testing.assert_array_equal(own, [1, 2, 3])
