"""Models in eight bits compute what their rounded weights say."""

import numpy as np
import pytest
from keras import ops

from keras_llm import models
from keras_llm.layers import Linear, TokenEmbedding
from keras_llm.layers.walking import sublayers

SIZES = {"vocab_size": 37, "width": 20, "num_layers": 2, "num_heads": 5}
LLAMA = models.LlamaConfig(**{**SIZES, "key_value_heads": 1}, max_positions=29)
CONFIGS = {
    "llama": LLAMA,
    "llama_tied": LLAMA.replace(tied=True),
    "gpt2": models.GPT2Config(**SIZES, max_positions=29),
    "gemma": models.GemmaConfig(
        **{**SIZES, "num_heads": 2}, head_size=6, feed_forward_width=31
    ),
}
IDS = np.random.default_rng(1).integers(37, size=(3, 11))


def randomised(config):
    model = models.build(config)
    rng = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(rng.normal(weight.path.endswith("scale"), 0.2, weight.shape))
    return model


def rounded_by_hand(model):
    """Rounds the same matrices in float64, by the outputs of each."""
    for layer in sublayers(model):
        if isinstance(layer, Linear):
            weight, axis = layer.kernel, 0
        elif isinstance(layer, TokenEmbedding):
            weight, axis = layer.embeddings, 1
        else:
            continue
        values = ops.convert_to_numpy(weight).astype("float64")
        scale = np.abs(values).max(axis, keepdims=True) / 127
        weight.assign(np.round(values / scale) * scale)
    return model


@pytest.mark.parametrize("name", CONFIGS)
def test_logits_are_those_of_the_rounded_weights(name):
    model, expected = (
        randomised(CONFIGS[name]),
        rounded_by_hand(randomised(CONFIGS[name])),
    )
    before = ops.convert_to_numpy(model(IDS))
    models.quantize(model)
    logits = ops.convert_to_numpy(model(IDS))
    np.testing.assert_allclose(logits, expected(IDS), rtol=1e-4, atol=1e-4)
    assert 1e-4 < np.abs(logits - before).max() < 0.1 * np.abs(before).max()


def test_decoding_goes_through_the_same_bits():
    model = randomised(LLAMA.replace(tied=True))
    models.quantize(model)
    decoder = models.decoder(model)
    ids = ops.convert_to_tensor(IDS, "int32")
    lengths = ops.full([3], 7, "int32")
    logits, state = decoder.prefill(ids[:, :7], lengths, 11)
    for t in range(7, 11):
        logits, state = decoder.step(ids[:, t], state)
    whole = ops.convert_to_numpy(model(IDS))[:, -1]
    np.testing.assert_allclose(ops.convert_to_numpy(logits), whole, atol=1e-4)


def test_its_variables_are_a_quarter_of_the_size():
    model = randomised(LLAMA)
    assert models.quantized_weights(model) is None
    models.quantize(model)
    weights = models.quantized_weights(model)
    eight = [weight for weight in weights if weight.dtype == "int8"]
    kernels = {weight.path: weight for weight in model.weights}
    assert sum(np.prod(weight.shape) for weight in eight) == sum(
        np.prod(weight.shape)
        for path, weight in kernels.items()
        if path.endswith(("kernel", "embeddings"))
    )
    # A scale beside each; norms and what dropout counts with are as they were.
    assert len(weights) == len(kernels) + len(eight)


def test_once_and_without_an_adapter_that_learns():
    model = randomised(LLAMA)
    models.quantize(model)
    with pytest.raises(ValueError, match="quantised once"):
        models.quantize(model)
    with pytest.raises(ValueError, match="which multiplies by a QuantizedKernel"):
        model.get_layer("head").pack()
    learning = randomised(LLAMA)
    models.add_adapter(learning, models.AdapterConfig(rank=2))
    with pytest.raises(ValueError, match="Merge it first"):
        models.quantize(learning)
