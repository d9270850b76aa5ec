"""Learnt prompts against models whose tables are that much longer."""

import keras
import numpy as np
import pytest

from keras_llm import models
from keras_llm.core import CorruptFolderError, read_json, write_json, write_manifest
from keras_llm.layers import TokenEmbedding

V, P, D = 29, 7, 12
SIZES = {"vocab_size": V, "num_layers": 1}
SPLIT = {**SIZES, "max_positions": 23, "width": D, "num_heads": 3}
CONFIGS = {
    "gpt2": models.GPT2Config(**SPLIT),
    "llama": models.LlamaConfig(**SPLIT, key_value_heads=1, feed_forward_width=20),
    "llama untied documents": models.LlamaConfig(**SPLIT, tied=False, separator_id=0),
    "gemma": models.GemmaConfig(
        **SPLIT, key_value_heads=1, head_size=4, feed_forward_width=20
    ),
    "lstm_lm": models.LSTMLMConfig(**SIZES, embedding_width=D, units=5),
}
PROMPT = models.PromptConfig(tokens=P)
# Two conversations of unlike lengths in a row, the second after a separator.
IDS = np.array([[*range(V, V + P), 3, 1, 4, 1, 5], [0, *range(V, V + P), 2, 6, 5, 3]])
VECTORS = "token_embedding/prompt/vectors"


def values(model):
    return {w.path: keras.ops.convert_to_numpy(w) for w in model.weights}


def prompted(config, seed=5):
    """Returns a model with a prompt, all its weights at random."""
    keras.utils.set_random_seed(seed)
    model = models.build(config)
    models.add_adapter(model, PROMPT, seed)
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        weight.assign(rng.normal(0, 0.5, weight.shape).astype("float32"))
    return model


def longer(model):
    """Returns the plain model in whose table the prompt's vectors are ordinary rows."""
    own = values(model)
    made = models.build(model.config.replace(vocab_size=V + P))
    for weight in made.weights:
        value = own[weight.path]
        if weight.path == "token_embedding/embeddings":
            value = np.concatenate([value, own[VECTORS]])
        elif tuple(weight.shape) != value.shape:  # A head of more columns.
            value = np.pad(value, [(0, 0), (0, P)])
        weight.assign(value)
    return made


def logits(model, ids=IDS):
    return keras.ops.convert_to_numpy(model(ids))


@pytest.mark.parametrize("name", CONFIGS)
def test_it_is_a_longer_table_without_logits(name):
    model = prompted(CONFIGS[name])
    found = logits(model)
    assert found.shape == (2, 12, V)
    expected = logits(longer(model))[..., :V]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    # What it reads matters.
    model.get_layer("token_embedding").prompt.vectors.assign(np.zeros((P, D)))
    assert np.abs(logits(model) - expected)[:, -1].max() > 1e-2


@pytest.mark.parametrize("name", ["gpt2", "lstm_lm"])
def test_cached_decoding_reads_it_too(name):
    model = prompted(CONFIGS[name])
    decoder, ids = models.decoder(model), IDS[:1].astype("int32")
    full = logits(model, ids)
    found, state = decoder.prefill(ids[:, :-1], np.array([ids.shape[1] - 1]), 12)
    np.testing.assert_allclose(found, full[:, -2], rtol=1e-4, atol=1e-4)
    found, _ = decoder.step(ids[:, -1], state)
    np.testing.assert_allclose(found, full[:, -1], rtol=1e-4, atol=1e-4)


def test_text_is_read_as_before():
    keras.utils.set_random_seed(1)
    model, text = models.build(CONFIGS["llama"]), IDS[:, -4:]
    before = logits(model, text)
    models.add_adapter(model, PROMPT)
    np.testing.assert_array_equal(logits(model, text), before)


def test_it_starts_as_rows_of_the_table():
    """Each once where there are enough; by the seed, of the first rows alone."""
    found = []
    for seed in (3, 3, 4):
        keras.utils.set_random_seed(1)
        model = models.build(CONFIGS["gpt2"])
        models.add_adapter(model, PROMPT.replace(first_rows=11), seed)
        own = values(model)
        distance = own[VECTORS][:, None] - own["token_embedding/embeddings"][None]
        ids = np.abs(distance).sum(-1).argmin(-1)
        assert np.abs(distance[np.arange(P), ids]).max() == 0
        assert len(set(ids)) == P and max(ids) < 11
        found.append(ids.tolist())
    assert found[0] == found[1] != found[2]
    models.add_adapter(models.build(CONFIGS["gpt2"]), PROMPT.replace(tokens=2 * V))


def test_it_alone_is_learnt():
    model = prompted(CONFIGS["gemma"])
    assert [w.path for w in model.trainable_weights] == [VECTORS]
    assert models.adapter_weights(model) == model.trainable_weights
    assert models.count_parameters(model) == P * D


def test_a_table_without_it_is_as_before():
    layer = TokenEmbedding(V, D)
    layer.build(None)
    assert [weight.name for weight in layer.weights] == ["embeddings"]
    assert not layer.prompt.built


def test_in_mixed_precision_it_computes_in_bfloat16():
    model = models.build(CONFIGS["llama"], "mixed_bfloat16")
    models.add_adapter(model, PROMPT)
    table = model.get_layer("token_embedding")
    assert keras.backend.standardize_dtype(table(IDS).dtype) == "bfloat16"
    assert table.prompt.vectors.dtype == "float32"


def test_in_eight_bits_it_stays_as_it_is():
    model = prompted(CONFIGS["llama"])
    models.quantize(model)
    vectors = values(model)[VECTORS]
    table = keras.ops.convert_to_numpy(model.get_layer("token_embedding")(IDS[:1, :P]))
    np.testing.assert_array_equal(table[0], vectors)
    # Its other weights are by now those that the eight bits stand for.
    np.testing.assert_allclose(
        logits(model), logits(longer(model))[..., :V], rtol=1e-3, atol=1e-3
    )
    assert VECTORS in {w.path for w in models.quantized_weights(model)}


def saved(folder, model):
    """Saves a model's prompt as `own`, and what it stands before as `base`."""
    base, own = models.build(model.config), values(model)
    for weight in base.weights:
        weight.assign(own[weight.path])
    models.save(base, folder / "base")
    models.save_adapter(model, folder / "own", folder / "base")
    return base


def test_it_is_saved_alone(tmp_path):
    model = prompted(CONFIGS["llama"])
    base = saved(tmp_path, model)
    described = read_json(tmp_path / "own" / "adapter.json")
    wanted = {"kind": "prompt", "tokens": P, "first_rows": 5_000}
    assert described["adapter"] == wanted
    size = (tmp_path / "own" / "adapter.safetensors").stat().st_size
    assert 4 * P * D <= size < 4 * P * D + 200
    assert f"A prompt of {P} learnt vectors" in (tmp_path / "own/README.md").read_text()
    # As a model folder.
    loaded = models.load(tmp_path / "own")
    np.testing.assert_array_equal(logits(loaded), logits(model))
    assert models.load_config(tmp_path / "own") == CONFIGS["llama"]
    whole = sum(value.size for value in values(model).values())
    assert models.count_parameters(loaded) == whole
    # Beside the base, to go on with.
    models.load_adapter(base, tmp_path / "own", tmp_path / "base")
    np.testing.assert_array_equal(logits(base), logits(model))
    assert models.count_parameters(base) == P * D


def test_another_base_is_refused(tmp_path):
    saved(tmp_path, prompted(CONFIGS["gpt2"]))
    (tmp_path / "base").rename(tmp_path / "away")
    models.save(models.build(CONFIGS["gpt2"]), tmp_path / "base")
    with pytest.raises(ValueError, match="fits the weights alone"):
        models.load(tmp_path / "own")


def test_vectors_of_another_number_are_refused(tmp_path):
    saved(tmp_path, prompted(CONFIGS["gpt2"]))
    path = tmp_path / "own" / "adapter.json"
    described = read_json(path)
    described["adapter"]["tokens"] = P + 1
    path.unlink()
    write_json(path, described)
    (tmp_path / "own" / "manifest.json").unlink()
    write_manifest(tmp_path / "own")
    with pytest.raises(CorruptFolderError, match="has shape"):
        models.load(tmp_path / "own")


def test_what_is_refused(tmp_path):
    model = prompted(CONFIGS["gpt2"])
    base = saved(tmp_path, model)
    for again in (PROMPT, models.AdapterConfig()):
        with pytest.raises(ValueError, match="one adapter at a time"):
            models.add_adapter(model, again)
    with pytest.raises(ValueError, match="part of kernels"):
        models.merged(model)
    with pytest.raises(ValueError, match="holds a plain model"):
        models.save(model, tmp_path / "model")
    with pytest.raises(ValueError, match="a learnt prompt, which is ids in front"):
        models.add_adapters(base, {"a": tmp_path / "own"}, tmp_path / "base")
    sizes = {"vocab_size": V, "width": D, "num_layers": 1, "num_heads": 3}
    for other in (models.BertConfig(**sizes), models.T5Config(**sizes)):
        with pytest.raises(ValueError, match="without an encoder"):
            models.add_adapter(models.build(other), PROMPT)
    for wrong in ({"tokens": 0}, {"first_rows": 0}, {"kind": "lora"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            models.PromptConfig(**wrong)
    assert not (tmp_path / "model").exists()
