"""TensorFlow functions without their traces.

A trace takes as long as ten steps of a small model, a tokenizer's a second or two:
where a test calls few times and compares values alone, this is far quicker. What is
traced has tests of its own.
"""

import contextlib

import pytest
import tensorflow as tf


@contextlib.contextmanager
def op_by_op():
    """Runs what is a `tf.function` as it is written."""
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(False)


@pytest.fixture(scope="module")
def eager_functions():
    """Runs a whole file's functions op by op."""
    with op_by_op():
        yield
