"""TensorFlow as `tests/forked.py` passes it on: imported, its devices looked for."""

import tensorflow as tf
import tensorflow_text  # noqa: F401

tf.config.list_physical_devices()
