"""Which axis of which weight is cut, for every architecture with blocks."""

import types

import keras
import pytest

from keras_llm import models
from keras_llm.models import sharding, skeleton

SIZES = {"vocab_size": 66, "width": 12, "num_heads": 3, "num_layers": 1}


class Mesh:
    """A mesh of devices that need not be there."""

    axis_names = ("batch", "model")

    def __init__(self, parts):
        self.shape = (2, parts)
        self.devices = None


@pytest.fixture
def layouts(monkeypatch):
    """Returns a function from config and parts to weight: its axes."""
    # The layout alone is to take the backend for JAX, not the layers that it looks at.
    view = types.SimpleNamespace(**vars(keras))
    view.config = types.SimpleNamespace(backend=lambda: "jax")
    monkeypatch.setattr(sharding, "keras", view)

    def found(config, parts):
        layout = models.layout_map(config, Mesh(parts))
        return {path: layout[path].axes for path in layout}

    return found


def test_columns_then_rows_are_cut(layouts):
    found = layouts(models.GPT2Config(**SIZES), 3)
    assert found == {
        "token_embedding/embeddings": ("model", None),
        "block_0/attention/query_key_value/kernel": (None, "model"),
        "block_0/attention/query_key_value/bias": ("model",),
        "block_0/attention/output/kernel": ("model", None),
        "block_0/feed_forward/inner/kernel": (None, "model"),
        "block_0/feed_forward/inner/bias": ("model",),
        "block_0/feed_forward/output/kernel": ("model", None),
    }


@pytest.mark.parametrize(
    "config",
    [
        models.LlamaConfig(**SIZES),
        models.T5Config(**SIZES),
        models.BertConfig(**SIZES, max_positions=10),
        models.GemmaConfig(**SIZES),
    ],
    ids=lambda config: config.architecture,
)
def test_every_matrix_of_a_block_is_cut(layouts, config):
    found = layouts(config, 2)
    matrices = {
        weight.path
        for weight in skeleton(config).weights
        if weight.path.endswith("kernel") and "block_" in weight.path
    }
    assert matrices and matrices <= set(found)


def test_what_does_not_divide_stays_whole(layouts):
    found = layouts(models.GPT2Config(**SIZES), 4)  # 66 ids among 4.
    assert "token_embedding/embeddings" not in found
    assert "block_0/feed_forward/inner/kernel" in found


def test_an_axis_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(keras.config, "backend", lambda: "jax")
    with pytest.raises(ValueError, match="Received: 'rows'"):
        models.layout_map(models.GPT2Config(**SIZES), Mesh(2), axis="rows")


def test_other_backends_are_refused(monkeypatch):
    monkeypatch.setattr(keras.config, "backend", lambda: "tensorflow")
    with pytest.raises(ValueError, match="Received: 'tensorflow'"):
        models.layout_map(models.GPT2Config(**SIZES), Mesh(2))
