"""What holds for every test."""

import gc
import sys
import zlib

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
    tolerance that holds once holds always.
    """
    if "keras" in sys.modules:
        path = item.path.relative_to(item.config.rootpath).as_posix()
        sys.modules["keras"].utils.set_random_seed(zlib.crc32(path.encode()))


@pytest.fixture(scope="module", autouse=True)
def _old_objects_out_of_sight():
    """Takes what earlier files left alive out of the garbage collector's walks.

    TensorFlow's graphs and Keras' layers are millions of objects that live on in
    caches; to walk them again and again made late tests several times as slow.
    """
    gc.collect()
    gc.freeze()
