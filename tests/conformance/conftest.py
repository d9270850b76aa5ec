"""Settings of the conformance suite, made before TensorFlow starts its devices.

Files named `test_tensorflow_*.py` belong to the run on TensorFlow alone.
"""

import keras

collect_ignore_glob = []
if keras.config.backend() == "tensorflow":
    import tensorflow as tf

    # Two replicas on one machine.
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0],
        [tf.config.LogicalDeviceConfiguration()] * 2,
    )
else:
    collect_ignore_glob.append("test_tensorflow_*.py")
