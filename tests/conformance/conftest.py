"""Settings of the conformance suite, made before TensorFlow starts its devices."""

import keras

if keras.config.backend() == "tensorflow":
    import tensorflow as tf

    # Two replicas on one machine.
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0],
        [tf.config.LogicalDeviceConfiguration()] * 2,
    )
