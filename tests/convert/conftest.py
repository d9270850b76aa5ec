"""What the tests of conversion share."""

import functools

import pytest

from keras_llm import models
from keras_llm.models import folder
from tests.eager_functions import eager_functions  # noqa: F401


@pytest.fixture(scope="package", autouse=True)
def skeletons_built_once():
    """A skeleton depends on its config alone; most tests ask for the same few."""
    cached = functools.cache(models.skeleton)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "skeleton", cached)
        patch.setattr(folder, "skeleton", cached)
        yield
