"""`modules.json` says how a sentence encoder pools."""

import json
import pathlib
import shutil

import numpy as np
import pytest
import safetensors.numpy

from keras_llm import convert, core, models

GOLDEN = pathlib.Path(__file__).parents[2] / "testdata" / "golden"
STEPS = ("Transformer", "Pooling", "Normalize")


@pytest.fixture
def folder(tmp_path):
    """Returns a BERT without a head, as a sentence encoder that takes the mean."""
    path = tmp_path / "encoder"
    shutil.copytree(GOLDEN / "bert", path)
    config = json.loads((path / "config.json").read_text())
    config["architectures"] = ["BertModel"]
    (path / "config.json").write_text(json.dumps(config))
    weights = safetensors.numpy.load_file(path / "model.safetensors")
    trunk = {
        name.removeprefix("bert."): value
        for name, value in weights.items()
        if name.startswith("bert.")
    }
    safetensors.numpy.save_file(trunk, path / "model.safetensors", {"format": "pt"})
    write(path, STEPS, mean_tokens=True, cls_token=False)
    return path


def write(path, steps, **modes):
    modules = [
        {"type": f"library.models.{step}", "path": f"{i}_{step}" if i else ""}
        for i, step in enumerate(steps)
    ]
    (path / "modules.json").write_text(json.dumps(modules))
    (path / "1_Pooling").mkdir(exist_ok=True)
    settings = {f"pooling_mode_{name}": on for name, on in modes.items()}
    (path / "1_Pooling" / "config.json").write_text(json.dumps(settings))


def test_the_mean_over_real_tokens_gets_length_1(folder, tmp_path):
    convert.import_folder(folder, tmp_path / "model")
    model = models.load(tmp_path / "model")
    assert (model.config.pooling, model.config.normalize) == ("mean", True)
    with np.load(GOLDEN / "bert.npz") as golden:
        rows = {"token_ids": golden["masked_ids"], "segment_ids": golden["segment_ids"]}
        rows["lengths"], hidden = golden["lengths"], golden["hidden"][-1]
    found = np.asarray(model(rows))
    for row, length in enumerate(rows["lengths"]):
        mean = np.float64(hidden[row, :length]).mean(axis=0)
        expected = mean / np.linalg.norm(mean)
        np.testing.assert_allclose(found[row], expected, rtol=1e-4, atol=1e-5)


def test_the_first_token_without_a_norm(folder, tmp_path):
    write(folder, STEPS[:2], mean_tokens=False, cls_token=True)
    convert.import_folder(folder, tmp_path / "model")
    config = models.load_config(tmp_path / "model")
    assert (config.pooling, config.normalize) == ("first", False)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            lambda path: write(path, [*STEPS, "Dense"], mean_tokens=True),
            convert.UnsupportedModelError,
            "at most a Normalize. Received: .*'Dense'",
        ),
        (
            lambda path: write(path, STEPS, mean_tokens=True, max_tokens=True),
            convert.UnsupportedModelError,
            "Pooling must be one of",
        ),
        (
            lambda path: write(path, STEPS, mean_sqrt_len_tokens=True),
            convert.UnsupportedModelError,
            "mean_sqrt_len",
        ),
        (
            lambda path: (path / "modules.json").write_text('[{"type": 3}]'),
            core.CorruptFolderError,
            "malformed",
        ),
    ],
)
def test_other_steps_are_refused(change, error, message, folder, tmp_path):
    change(folder)
    with pytest.raises(error, match=message):
        convert.import_folder(folder, tmp_path / "model")
    assert not (tmp_path / "model").exists()
