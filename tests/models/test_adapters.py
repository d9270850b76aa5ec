"""Low-rank adapters against NumPy, merged, saved and refused."""

import json

import keras
import numpy as np
import pytest

from keras_llm import models
from keras_llm.core import CorruptFolderError
from keras_llm.models.adapters import KINDS

CONFIG = models.LlamaConfig(
    vocab_size=29, max_positions=16, width=12, num_layers=2, num_heads=3,
    key_value_heads=1, feed_forward_width=20,
)  # fmt: skip
IDS = np.array([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])
KERNEL = "block_1/feed_forward/inner"


def adapted(kind="lora", seed=5, **fields):
    """Returns a model whose adapter is no longer at its start."""
    keras.utils.set_random_seed(seed)
    model = models.build(CONFIG)
    models.add_adapter(model, models.AdapterConfig(kind=kind, rank=3, **fields), seed)
    rng = np.random.default_rng(seed)
    for weight in models.adapter_weights(model):
        noise = rng.normal(0, 0.3, weight.shape).astype("float32")
        weight.assign(keras.ops.convert_to_numpy(weight) + noise)
    return model


def saved(folder, model):
    """Saves a model's adapter as `own`, and as its `base` some model."""
    models.save(models.merged(model), folder / "base")
    models.save_adapter(model, folder / "own", folder / "base")
    return folder / "own"


def values(model):
    return {w.path: keras.ops.convert_to_numpy(w) for w in model.weights}


def logits(model):
    return keras.ops.convert_to_numpy(model(IDS))


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_starts_as_nothing(kind):
    keras.utils.set_random_seed(1)
    model = models.build(CONFIG)
    before = logits(model)
    models.add_adapter(model, models.AdapterConfig(kind=kind, rank=3))
    np.testing.assert_allclose(logits(model), before, atol=2e-6)


@pytest.mark.parametrize(("kind", "scale"), [("lora", 16 / 3), ("rslora", 16 / 3**0.5)])
def test_the_change_is_the_scaled_product(kind, scale):
    model = adapted(kind)
    own = values(model)
    merged = values(models.merged(model))
    change = merged[f"{KERNEL}/kernel"] - own[f"{KERNEL}/kernel"]
    expected = np.zeros_like(change)
    down, up = own[f"{KERNEL}/adapter/down"], own[f"{KERNEL}/adapter/up"]
    for r in range(3):
        expected += scale * np.outer(down[:, r], up[r])
    np.testing.assert_allclose(change, expected, rtol=1e-4, atol=1e-5)


def test_dora_gives_each_column_its_own_length():
    model = adapted("dora")
    own = values(model)
    kernel = values(models.merged(model))[f"{KERNEL}/kernel"]
    magnitude = own[f"{KERNEL}/adapter/magnitude"]
    np.testing.assert_allclose(
        np.linalg.norm(kernel, axis=0), np.abs(magnitude), rtol=1e-5
    )
    direction = own[f"{KERNEL}/kernel"] + 16 / 3 * (
        own[f"{KERNEL}/adapter/down"] @ own[f"{KERNEL}/adapter/up"]
    )
    cosine = (kernel * direction).sum(0) / np.linalg.norm(kernel, axis=0)
    np.testing.assert_allclose(
        np.abs(cosine), np.linalg.norm(direction, axis=0), rtol=1e-5
    )


@pytest.mark.parametrize("kind", KINDS)
def test_merged_and_apart_are_one(kind):
    model = adapted(kind)
    plain = models.merged(model)
    assert not models.has_adapter(plain)
    assert [w.path for w in plain.weights] == [
        w.path for w in models.build(CONFIG).weights
    ]
    np.testing.assert_allclose(logits(plain), logits(model), rtol=1e-4, atol=1e-5)


def test_targets_choose_projections():
    model = adapted(targets="block_0/attention/query_key_value$")
    paths = {weight.path.rpartition("/")[0] for weight in model.trainable_weights}
    assert paths == {"block_0/attention/query_key_value/adapter"}


def test_dropout_is_of_training_alone():
    model = adapted(dropout=0.5)
    dropped = keras.ops.convert_to_numpy(model(IDS, training=True))
    assert not np.allclose(dropped, logits(model), atol=1e-3)
    np.testing.assert_array_equal(logits(model), logits(model))


@pytest.mark.parametrize("kind", KINDS)
def test_in_mixed_precision_it_computes_in_bfloat16(kind):
    model = models.build(CONFIG, "mixed_bfloat16")
    models.add_adapter(model, models.AdapterConfig(kind=kind, rank=3))
    layer = model.get_layer("block_0").attention.output_projection
    x = np.ones((2, 12), "float32")
    assert keras.backend.standardize_dtype(layer(x).dtype) == "bfloat16"
    assert {w.dtype for w in models.adapter_weights(model)} == {"float32"}


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_is_saved_alone(kind, tmp_path):
    model = adapted(kind)
    plain = models.build(CONFIG)
    base = values(model)
    for weight in plain.weights:
        weight.assign(base[weight.path])
    models.save(plain, tmp_path / "base")
    models.save_adapter(model, tmp_path / "adapter", tmp_path / "base")
    size = sum(f.stat().st_size for f in (tmp_path / "adapter").iterdir())
    assert size < (tmp_path / "base" / "model.safetensors").stat().st_size
    # As a model folder, merged.
    loaded = models.load(tmp_path / "adapter")
    assert not models.has_adapter(loaded)
    np.testing.assert_allclose(logits(loaded), logits(model), rtol=1e-4, atol=1e-5)
    assert models.load_config(tmp_path / "adapter") == CONFIG
    # Beside the base, to go on with.
    models.load_adapter(plain, tmp_path / "adapter", tmp_path / "base")
    np.testing.assert_array_equal(logits(plain), logits(model))


def test_base_and_adapter_may_move_together(tmp_path):
    model = adapted()
    (tmp_path / "a").mkdir()
    saved(tmp_path / "a", model)
    (tmp_path / "a").rename(tmp_path / "b")
    models.load(tmp_path / "b" / "own")
    (tmp_path / "b" / "base").rename(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError, match="needs the model folder"):
        models.load(tmp_path / "b" / "own")


def test_another_base_is_refused(tmp_path):
    saved(tmp_path, adapted(seed=5))
    other = models.merged(adapted(seed=6))
    models.save(other, tmp_path / "other")
    with pytest.raises(ValueError, match="fits the weights alone"):
        models.load_adapter(other, tmp_path / "own", tmp_path / "other")
    (tmp_path / "base").rename(tmp_path / "away")
    (tmp_path / "other").rename(tmp_path / "base")
    with pytest.raises(ValueError, match="fits the weights alone"):
        models.load(tmp_path / "own")


def test_a_damaged_adapter_is_refused(tmp_path):
    file = saved(tmp_path, adapted()) / "adapter.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(CorruptFolderError, match=r"adapter\.safetensors"):
        models.load(tmp_path / "own")


def test_weights_of_another_rank_are_refused(tmp_path):
    from keras_llm.core import write_manifest

    path = saved(tmp_path, adapted()) / "adapter.json"
    described = json.loads(path.read_text())
    described["adapter"]["rank"] = 4
    path.write_text(json.dumps(described))
    (tmp_path / "own" / "manifest.json").unlink()
    write_manifest(tmp_path / "own")
    with pytest.raises(CorruptFolderError, match="has shape"):
        models.load(tmp_path / "own")


def test_what_is_refused(tmp_path):
    model = adapted()
    with pytest.raises(ValueError, match="one adapter at a time"):
        models.add_adapter(model, models.AdapterConfig())
    with pytest.raises(ValueError, match=r"models\.save_adapter"):
        models.save(model, tmp_path / "model")
    plain = models.build(CONFIG)
    with pytest.raises(ValueError, match="matches none. Among them are: block_"):
        models.add_adapter(plain, models.AdapterConfig(targets="blocks/atention"))
    with pytest.raises(ValueError, match="a model without one"):
        models.save_adapter(plain, tmp_path / "adapter", tmp_path)
    for wrong in ({"rank": 0}, {"kind": "loha"}, {"dropout": 1.0}, {"targets": "("}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            models.AdapterConfig(**wrong)
    assert not list(tmp_path.iterdir())
