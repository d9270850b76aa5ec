"""What is public and of a kind that the conformance suite knows."""

import inspect

import keras

from keras_llm import layers, models
from keras_llm.ops import sampling


def public(package, kind):
    """Returns the names in a package's `__all__` that are concrete classes."""
    return {
        name
        for name in package.__all__
        if inspect.isclass(getattr(package, name))
        and issubclass(getattr(package, name), kind)
        and not inspect.isabstract(getattr(package, name))
    }


def layer_names():
    """Returns the names of the public layers."""
    return public(layers, keras.layers.Layer)


def model_names():
    """Returns the names of the architectures, once by table and once by config."""
    configs = public(models, object)
    by_config = {
        getattr(models, name).architecture
        for name in configs
        if hasattr(getattr(models, name), "architecture")
    }
    return set(models.ARCHITECTURES) | by_config


def sampler_names():
    """Returns the names of the public functions that choose tokens."""
    return {
        name
        for name, value in vars(sampling).items()
        if inspect.isfunction(value)
        and value.__module__ == sampling.__name__
        and not name.startswith("_")
    }
