"""Files named `test_tensorflow_*.py` belong to the run on TensorFlow alone."""

import keras

on_tensorflow = keras.config.backend() == "tensorflow"
collect_ignore_glob = [] if on_tensorflow else ["test_tensorflow_*.py"]
