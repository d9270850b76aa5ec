"""What holds for every test."""

import gc
import random
import zlib

import numpy as np
import pytest


def pytest_ignore_collect(collection_path):
    """Leaves files named `test_tensorflow_*.py` to the run on TensorFlow."""
    if collection_path.name.startswith("test_tensorflow_"):
        import keras

        if keras.config.backend() != "tensorflow":
            return True
    return None


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Draws the weights and samples of a file's tests from one seed, named by its path.

    So a test sees the same numbers alone, in another order and in another worker; a
    tolerance that holds once holds always. Keras draws the seeds of its initializers
    from Python's own generator. TensorFlow's seed is left alone: setting it throws away
    every compiled function.
    """
    path = item.path.relative_to(item.config.rootpath).as_posix()
    seed = zlib.crc32(path.encode())
    random.seed(seed)
    np.random.seed(seed)


@pytest.fixture(scope="module", autouse=True)
def _old_objects_out_of_sight():
    """Takes what earlier files left alive out of the garbage collector's walks.

    TensorFlow's graphs and Keras' layers are millions of objects that live on in
    caches; to walk them again and again made late tests several times as slow.
    """
    gc.collect()
    gc.freeze()
