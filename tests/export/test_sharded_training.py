"""Weights trained on four JAX devices come back, and TensorFlow serves them."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from keras_llm import export, models

ROOT = pathlib.Path(__file__).parents[2]
STEPS = 8
ON_JAX = """
import sys
import numpy as np
from keras_llm import models
model = models.load(sys.argv[1])
np.save(sys.argv[3], np.asarray(model(np.load(sys.argv[2]))))
"""


def on_jax(*words):
    """Runs Python on the JAX backend, four devices out of one CPU."""
    done = subprocess.run(
        [sys.executable, *map(str, words)],
        env=os.environ
        | {
            "KERAS_BACKEND": "jax",
            "PYTHONPATH": str(ROOT),
            "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
        },
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def train(folder, data_parallel, model_parallel):
    printed = on_jax(
        "docs/examples/train_sharded.py",
        "--text=testdata/moby_dick.txt",
        f"--out={folder}",
        f"--data_parallel={data_parallel}",
        f"--model_parallel={model_parallel}",
        f"--steps={STEPS}",
    )
    return json.loads(printed.splitlines()[-1])


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Returns folder and figures of a run on one device, and of one on 2 x 2."""
    folder = tmp_path_factory.mktemp("sharded")
    return {
        name: (folder / name, train(folder / name, *layout))
        for name, layout in {"one": (1, 1), "four": (2, 2)}.items()
    }


def test_losses_are_those_of_one_device(runs):
    (_, one), (_, four) = runs["one"], runs["four"]
    np.testing.assert_allclose(four["losses"], one["losses"], atol=1e-5)
    assert one["losses"][-1] < one["losses"][0] - 0.1


def test_each_device_holds_half_of_every_matrix(runs):
    (folder, one), (_, four) = runs["one"], runs["four"]
    model = models.skeleton(models.load_config(folder))
    vectors = sum(4 * w.shape[0] for w in model.weights if len(w.shape) == 1)
    halved = one["weight_bytes"] - vectors
    assert four["weight_bytes"] == vectors + halved // 2
    assert four["optimizer_bytes"] < 0.51 * one["optimizer_bytes"]
    # Half the rows each, and of the widest activations half the columns.
    assert 0.25 < four["working_bytes"] / one["working_bytes"] < 0.5


def test_the_export_gives_the_logits_that_jax_gives(runs, tmp_path):
    folder, _ = runs["four"]
    ids = np.random.default_rng(5).integers(0, 257, (3, 7)).astype("int32")
    np.save(tmp_path / "ids.npy", ids)
    script = tmp_path / "logits.py"
    script.write_text(ON_JAX)
    on_jax(script, folder, tmp_path / "ids.npy", tmp_path / "logits.npy")
    expected = np.load(tmp_path / "logits.npy")[:, -1]

    version = export.from_model_folder(folder, tmp_path / "served" / "1")
    found = tf.saved_model.load(str(version)).signatures["prefill"](
        token_ids=tf.constant(ids),
        lengths=tf.fill([3], 7),
        capacity=tf.fill([3], 7),
    )["logits"]
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found, expected, atol=1e-4 * scale)
