"""Building, sizes, precision, and the checks of configs."""

import keras
import numpy as np
import pytest

from keras_llm import models

SHARED = {"vocab_size": 31, "max_positions": 23, "width": 24, "num_layers": 2}
GPT2 = models.GPT2Config(**SHARED, num_heads=4)
LLAMA = models.LlamaConfig(**SHARED, num_heads=6, key_value_heads=2)
GEMMA = models.GemmaConfig(
    **SHARED,
    num_heads=4,
    key_value_heads=2,
    head_size=6,
    feed_forward_width=13,
    logit_soft_cap=2.0,
)
CONFIGS = (
    GPT2,
    GPT2.replace(use_bias=False),
    LLAMA,
    LLAMA.replace(tied=True),
    GEMMA,
)
IDS = np.random.default_rng(31).integers(0, 31, (2, 7)).astype("int32")


def test_weight_names_are_those_of_the_docs():
    """Model folders hold these names: changing one breaks every saved model."""
    block = [
        "attention_norm/scale",
        "attention_norm/bias",
        "attention/query_key_value/kernel",
        "attention/query_key_value/bias",
        "attention/output/kernel",
        "attention/output/bias",
        "feed_forward_norm/scale",
        "feed_forward_norm/bias",
        "feed_forward/inner/kernel",
        "feed_forward/inner/bias",
        "feed_forward/output/kernel",
        "feed_forward/output/bias",
    ]
    blocks = [f"block_{i}/{name}" for i in range(2) for name in block]
    ends = ["final_norm/scale", "final_norm/bias", "token_embedding/embeddings"]
    gpt2 = {weight.path for weight in models.build(GPT2).weights}
    assert gpt2 == {*blocks, *ends, "position_embedding/embeddings"}
    llama = {weight.path for weight in models.build(LLAMA).weights}
    unbiased = {name for name in (*blocks, *ends) if not name.endswith("bias")}
    assert llama == {*unbiased, "head/kernel"}
    more = LLAMA.replace(query_key_norm=True, query_key_value_bias=True)
    assert {weight.path for weight in models.build(more).weights} - llama == {
        f"block_{i}/attention/{name}"
        for i in range(2)
        for name in ("query_norm/scale", "key_norm/scale", "query_key_value/bias")
    }
    assert {weight.path for weight in models.build(GEMMA).weights} == unbiased
    post_normed = models.build(GEMMA.replace(post_norm=True))
    assert {weight.path for weight in post_normed.weights} - unbiased == {
        f"block_{i}/{name}_post_norm/scale"
        for i in range(2)
        for name in ("attention", "feed_forward")
    }


def test_gpt2_small_has_gpt2s_size():
    config = models.GPT2Config(vocab_size=50_257)
    width = config.width
    block = 12 * width**2 + 13 * width  # Kernels, then biases and norms.
    expected = (50_257 + 1_024) * width + 12 * block + 2 * width
    assert expected == 124_439_808
    small = models.build(GPT2)
    block = 12 * 24**2 + 13 * 24
    assert models.count_parameters(small) == (31 + 23) * 24 + 2 * block + 2 * 24


@pytest.mark.parametrize("config", CONFIGS)
def test_flops_are_six_per_matrix_weight_plus_attention(config):
    model = models.build(config)
    matrices = [
        int(np.prod(weight.shape))
        for weight in model.trainable_weights
        if weight.path.endswith("kernel")
    ]
    if getattr(config, "tied", True):
        matrices.append(31 * 24)  # The table, as the output's matrix.
    attention = 2 * 2 * 7 * 24 * config.num_layers  # q k and w v, per token.
    if config.architecture == "gemma":
        attention *= 4 * 6 / 24  # Its heads together are as wide as the model.
    expected = 6 * sum(matrices) + 3 * attention
    assert models.flops_per_token(config, context=7) == expected


@pytest.mark.parametrize("config", CONFIGS)
def test_split_head(config):
    model = models.build(config)
    trunk, project = models.split_head(model)
    np.testing.assert_allclose(project(trunk(IDS)), model(IDS), atol=1e-6)


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "bfloat16"])
@pytest.mark.parametrize("config", [GPT2, LLAMA])
def test_low_precision(config, dtype):
    exact = models.build(config)
    rounded = models.build(config, dtype)
    rounded.set_weights(exact.get_weights())
    assert {layer.compute_dtype for layer in rounded.layers[1:-1]} >= {"bfloat16"}
    logits = rounded(IDS)
    assert keras.backend.standardize_dtype(logits.dtype) == "float32"
    np.testing.assert_allclose(logits, exact(IDS), atol=0.05)
    decoded, state = models.decoder(rounded).prefill(IDS, np.array([7, 7]), 7)
    np.testing.assert_allclose(decoded, logits[:, -1], atol=0.02)
    assert keras.backend.standardize_dtype(state["keys_0"].dtype) == "bfloat16"


def test_gpt2_starts_as_published():
    model = models.build(models.GPT2Config(**{**SHARED, "width": 96}, num_heads=4))
    std = {w.path: float(np.std(np.asarray(w))) for w in model.weights}
    assert std["token_embedding/embeddings"] == pytest.approx(0.02, rel=0.05)
    for name in ("attention/query_key_value", "feed_forward/inner"):
        assert std[f"block_1/{name}/kernel"] == pytest.approx(0.02, rel=0.05)
    for name in ("attention/output", "feed_forward/output"):
        assert std[f"block_1/{name}/kernel"] == pytest.approx(0.01, rel=0.05)
    values = [np.asarray(w).ravel()[:9] for w in model.weights if "kernel" in w.path]
    assert len({value.tobytes() for value in values}) == len(values)


def test_dropout_trains_and_does_not_decode():
    model = models.build(GPT2.replace(dropout=0.5))
    quiet = np.asarray(model(IDS))
    assert np.abs(np.asarray(model(IDS, training=True)) - quiet).max() > 1e-3
    logits, _ = models.decoder(model).prefill(IDS, np.array([7, 7]), 7)
    np.testing.assert_allclose(logits, quiet[:, -1], atol=1e-5)


@pytest.mark.parametrize(
    ("config", "changes", "message"),
    [
        (GPT2, {"num_heads": 5}, "num_heads=5"),
        (GPT2, {"num_heads": 0}, "num_heads"),
        (GPT2, {"num_heads": -2}, "num_heads=-2"),
        (GPT2, {"num_heads": 2.0}, "num_heads.*int"),
        (GPT2, {"width": 0}, "width=0"),
        (GPT2, {"width": -24}, "width=-24"),
        (GPT2, {"vocab_size": -1}, "vocab_size"),
        (GPT2, {"max_positions": 0}, "max_positions"),
        (GPT2, {"max_positions": -1}, "max_positions=-1"),
        (GPT2, {"num_layers": -3}, "num_layers"),
        (GPT2, {"feed_forward_width": 0}, "feed_forward_width"),
        (GPT2, {"dropout": float("nan")}, "dropout"),
        (GPT2, {"dropout": 1.0}, "dropout"),
        (GPT2, {"epsilon": -1.0}, "epsilon"),
        (GPT2, {"separator_id": 31}, "separator_id=31"),
        (GPT2, {"separator_id": -1}, "separator_id"),
        (LLAMA, {"num_heads": 5, "head_size": None}, "num_heads=5"),
        (LLAMA, {"key_value_heads": 4}, "key_value_heads=4"),
        (LLAMA, {"key_value_heads": 0}, "key_value_heads=0"),
        (LLAMA, {"key_value_heads": -1}, "key_value_heads=-1"),
        (LLAMA, {"num_heads": 8}, "even"),
        (LLAMA, {"head_size": 3}, "even"),
        (LLAMA, {"head_size": 0}, "head_size"),
        (LLAMA, {"head_size": -4}, "head_size=-4"),
        (LLAMA, {"feed_forward_width": -1}, "feed_forward_width"),
        (LLAMA, {"rotary_base": 0.0}, "rotary_base"),
        (LLAMA, {"rotary_base": float("nan")}, "rotary_base"),
        (LLAMA, {"window": 0}, "window"),
        (LLAMA, {"rotary_scaling": {"factor": 0.5}}, "factor=0.5"),
        (LLAMA, {"rotary_scaling": {"high_frequency_factor": 1.0}}, "above"),
        (LLAMA, {"rotary_scaling": {"original_positions": 0}}, "original_positions"),
        (GEMMA, {"head_size": 5}, "head_size"),
        (GEMMA, {"key_value_heads": 3}, "key_value_heads=3"),
        (GEMMA, {"score_soft_cap": 0.0}, "score_soft_cap"),
        (GEMMA, {"logit_soft_cap": float("nan")}, "logit_soft_cap"),
        (GEMMA, {"full_every": 2}, "needs `window`"),
        (GEMMA, {"full_every": 0, "window": 3}, "full_every"),
        (LLAMA, {"widht": 8}, "Did you mean `width`"),
    ],
)
def test_bad_sizes_are_named(config, changes, message):
    with pytest.raises(ValueError, match=message):
        config.replace(**changes)


@pytest.mark.parametrize("config", [GPT2, LLAMA])
def test_an_open_vocabulary_is_refused(config):
    with pytest.raises(ValueError, match="tokenizer"):
        models.build(config.replace(vocab_size=0))


def test_llama_inner_width_is_two_thirds_of_four():
    assert models.LlamaConfig(width=768).inner_dim == 2_048
    assert models.LlamaConfig(width=768, feed_forward_width=100).inner_dim == 100
