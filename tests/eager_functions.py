"""TensorFlow functions without their traces."""

import pytest
import tensorflow as tf


@pytest.fixture(scope="module")
def eager_functions():
    """Runs what is a `tf.function` eagerly, for a file that compares values alone.

    A tokenizer is traced at its first call, which takes a second or two; these files
    make dozens of tokenizers and call each once. The traces have tests of their own.
    """
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)
