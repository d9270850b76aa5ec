"""Settings that every test shares; set before TensorFlow is first imported."""

import os

import hypothesis

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# A test that would fetch a model or a data set must fail, not wait.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

# The same examples in every run, and no verdict on a busy machine's speed.
hypothesis.settings.register_profile(
    "repeatable", derandomize=True, deadline=None, database=None
)
hypothesis.settings.load_profile("repeatable")
