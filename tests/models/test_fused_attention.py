"""On JAX, models reach the backend's fused attention wherever it knows their masks."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_llm import models

SIZES = {"vocab_size": 23, "width": 12, "num_layers": 3, "num_heads": 2}
PLAIN = {
    "gpt2": (models.GPT2Config(**SIZES), 3),
    "llama": (models.LlamaConfig(**SIZES), 3),
    "packed gpt2": (models.GPT2Config(**SIZES, separator_id=4), 0),
    "packed llama": (models.LlamaConfig(**SIZES, separator_id=4), 0),
    "windows": (models.LlamaConfig(**SIZES, window=2), 0),
    "gemma": (models.GemmaConfig(**SIZES, head_size=4), 3),
    "bounded scores": (models.GemmaConfig(**SIZES, head_size=4, score_soft_cap=5.0), 0),
    "a window in two layers of three": (
        models.GemmaConfig(**SIZES, head_size=4, window=2, full_every=3),
        1,
    ),
}


@pytest.mark.parametrize(("config", "expected"), PLAIN.values(), ids=PLAIN)
def test_layers_in_the_fused_kernel(config, expected, monkeypatch):
    calls, own = [], ops.dot_product_attention
    monkeypatch.setattr(
        ops,
        "dot_product_attention",
        lambda *xs, **options: calls.append(1) or own(*xs, **options),
    )
    model = models.build(config)
    calls.clear()
    model(np.array([[5, 4, 7, 9], [1, 2, 4, 4]]))
    assert len(calls) == (expected if keras.config.backend() == "jax" else 0)
