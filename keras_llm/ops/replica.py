"""Which replica is this? Asks which backend runs."""

import keras


def replica_id():
    """Returns this replica's number, from 0; an int or an int32 scalar tensor.

    On TensorFlow, inside `strategy.run`, it is the id among all replicas of all
    workers. Elsewhere it is 0: JAX runs one program over all devices, which draws
    one mask for the global batch, so no two rows share theirs anyway.

    >>> int(replica_id())
    0
    """
    if keras.config.backend() != "tensorflow":
        return 0
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    return 0 if context is None else context.replica_id_in_sync_group
