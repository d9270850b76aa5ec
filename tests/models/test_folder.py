"""Model folders: whole or refused, and the refusal names what is wrong."""

import errno
import json
import os
import shutil

import keras
import numpy as np
import pytest
import safetensors.numpy

from keras_llm import core, models

CONFIG = models.LlamaConfig(
    vocab_size=13, max_positions=7, width=12, num_layers=1, num_heads=2
)
IDS = np.array([[1, 5, 12]], "int32")


class Tokenizer:
    """Stands for a tokenizer: it can be saved."""

    kind = "byte"

    def save(self, folder):
        folder.mkdir()
        (folder / "tokenizer.json").write_text('{"kind": "byte"}')


@pytest.fixture
def model():
    return models.build(CONFIG)


@pytest.fixture
def folder(model, tmp_path):
    models.save(model, tmp_path / "model", Tokenizer())
    return tmp_path / "model"


def test_a_run_folder_points_to_its_best_model(tmp_path):
    (tmp_path / "run" / "best").mkdir(parents=True)
    (tmp_path / "run" / "config.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match="Give .*run/best"):
        models.load(tmp_path / "run")


def test_round_trip(model, folder):
    loaded = models.load(folder)
    assert loaded.config == CONFIG == models.load_config(folder)
    np.testing.assert_array_equal(loaded(IDS), model(IDS))
    assert models.load(folder, "mixed_bfloat16").layers[1].compute_dtype == "bfloat16"


def test_contents(model, folder):
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*")}
    assert names == {
        "README.md",
        "config.json",
        "manifest.json",
        "model.safetensors",
        "tokenizer",
        "tokenizer/tokenizer.json",
    }
    assert "llama" in (folder / "README.md").read_text()
    weights = safetensors.numpy.load_file(folder / "model.safetensors")
    assert set(weights) == {weight.path for weight in model.weights}
    assert {str(weight.dtype) for weight in weights.values()} == {"float32"}


def test_low_precision_weights_are_saved_in_float32(tmp_path):
    model = models.build(CONFIG, "bfloat16")
    models.save(model, tmp_path / "model")
    loaded = models.load(tmp_path / "model", "bfloat16")
    np.testing.assert_array_equal(loaded(IDS), model(IDS))
    with pytest.raises(FileNotFoundError, match="without a tokenizer"):
        models.load_tokenizer(tmp_path / "model")
    with pytest.raises(FileNotFoundError, match="A model folder is needed"):
        models.load_tokenizer(tmp_path / "nowhere")


def test_an_existing_folder_is_kept(model, folder):
    before = (folder / "model.safetensors").read_bytes()
    with pytest.raises(FileExistsError):
        models.save(model, folder)
    assert (folder / "model.safetensors").read_bytes() == before


def test_a_failed_save_leaves_nothing(model, tmp_path):
    class Broken(Tokenizer):
        def save(self, folder):
            raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        models.save(model, tmp_path / "model", Broken())
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_named_and_leaves_nothing(model, tmp_path, monkeypatch):
    def full(path, *_):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(models.folder, "write_tensors", full)
    with pytest.raises(core.DiskFullError, match="[0-9,]+ bytes are needed.*/model'"):
        models.save(model, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_too_little_room_is_refused_beforehand(model, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr(core.folders.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(core.DiskFullError, match="needs [0-9,]+ bytes, but 100"):
        models.save(model, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_a_skeleton_stays_empty_whatever_is_built_after_it(model, monkeypatch):
    skeleton = models.skeleton(CONFIG.replace(vocab_size=17))
    shapes = {w.path: tuple(w.shape) for w in models.skeleton(CONFIG).weights}
    assert shapes == {w.path: tuple(w.shape) for w in model.weights}
    filled = []
    normal = keras.initializers.RandomNormal
    original = normal.__call__

    def counted(self, shape, dtype=None):
        filled.append(tuple(shape))
        return original(self, shape, dtype)

    monkeypatch.setattr(normal, "__call__", counted)
    with keras.StatelessScope():
        models.build(CONFIG)  # When the scope ends, Keras fills in what is empty.
    assert (12, 13) in filled and (12, 17) not in filled
    assert tuple(skeleton.get_layer("head").kernel.shape) == (12, 17)


def test_no_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=str(tmp_path / "absent")):
        models.load(tmp_path / "absent")


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_damage_is_detected(folder, name, damage):
    path = folder / name
    data = bytearray(path.read_bytes())
    if damage == "remove":
        path.unlink()
    else:
        data[len(data) // 2] ^= 4
        path.write_bytes(data if damage == "flip" else data[: len(data) // 2])
    with pytest.raises(core.CorruptFolderError, match=name):
        models.load(folder)


def test_the_card_may_be_written_to(folder):
    with open(folder / "README.md", "a") as card:
        card.write("Trained on sea stories.\n")
    models.load(folder)
    (folder / "README.md").unlink()
    models.load(folder)


def rewrite(folder, change):
    """Changes the weights and signs the folder anew."""
    path = folder / "model.safetensors"
    weights = safetensors.numpy.load_file(path)
    change(weights)
    safetensors.numpy.save_file(weights, path)
    core.write_manifest(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("head/kernel"), r"Missing: \['head/kernel'\]"),
        (lambda w: w.update(extra=np.ones(2, "f4")), r"left over: \['extra'\]"),
        (
            lambda w: w.update({"head/kernel": np.ones((13, 12), "f4")}),
            r"`head/kernel` .* \(13, 12\), .* \(12, 13\)",
        ),
    ],
)
def test_weights_that_do_not_fit_are_named(model, folder, change, message):
    rewrite(folder, change)
    before = model.get_weights()
    with pytest.raises(core.CorruptFolderError, match=message):
        models.load(folder)
    with pytest.raises(core.CorruptFolderError):
        models.load_weights(model, folder / "model.safetensors")
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"architecture": "gpt5", "config": {}}, "'gpt2', 'llama'"),
        ({"architecture": "os.system", "config": {}}, "architecture"),
        ({"architecture": ["gpt2"], "config": {}}, "architecture"),
        ({"architecture": "llama", "config": {"widht": 3}}, "`width`"),
        ({"architecture": "llama", "config": {"width": "wide"}}, "width"),
        ({"architecture": "llama", "config": []}, "mapping"),
        ({"config": {}}, "config.json"),
        ([], "config.json"),
    ],
)
def test_configs_that_name_nothing_known_are_refused(folder, values, message):
    (folder / "config.json").write_text(json.dumps(values))
    core.write_manifest(folder)
    with pytest.raises(ValueError, match=message):
        models.load(folder)


def test_garbage_with_a_good_manifest_is_refused(folder):
    (folder / "model.safetensors").write_bytes(b"\xff" * 64)
    core.write_manifest(folder)
    with pytest.raises(core.CorruptFolderError, match="safetensors"):
        models.load(folder)
