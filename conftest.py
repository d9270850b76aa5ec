"""Settings that every test and doctest shares, set before TensorFlow is imported."""

import os

import hypothesis
import numpy as np
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# A test that would fetch a model or a data set must fail, not wait.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

# The same examples in every run, and no verdict on a busy machine's speed.
hypothesis.settings.register_profile(
    "repeatable", derandomize=True, deadline=None, database=None
)
hypothesis.settings.load_profile("repeatable")


@pytest.fixture(autouse=True)
def numpy_in_doctests(doctest_namespace):
    """Lets a docstring's example say `np` without importing it."""
    doctest_namespace["np"] = np
