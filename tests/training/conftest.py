"""Two replicas on one machine, set before TensorFlow starts its devices."""

import shutil

import keras
import pytest
import tensorflow as tf

from keras_llm import data, models, training
from keras_llm.training import Experiment, TokenizerConfig, TrainConfig
from tests.eager_functions import op_by_op

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0],
    [tf.config.LogicalDeviceConfiguration()] * 2,
)

TEXT = "the quick brown fox jumps over the lazy dog; " * 60


@pytest.fixture(scope="session")
def two_replicas():
    """Returns the one strategy of all tests: each new one counts its reductions from
    the same number on, and those of another shape would be taken for one another."""
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


@pytest.fixture(scope="session")
def texts(tmp_path_factory):
    """Returns the paths of a training and a validation text."""
    folder = tmp_path_factory.mktemp("text")
    (folder / "train.txt").write_text(TEXT)
    (folder / "valid.txt").write_text(TEXT[:190])
    return folder / "train.txt", folder / "valid.txt"


@pytest.fixture
def experiment():
    """Returns a small experiment whose fields tests replace."""
    return Experiment(
        model=models.GPT2Config(
            width=8, num_layers=1, num_heads=2, max_positions=16, dropout=0.1
        ),
        tokenizer=TokenizerConfig(kind="character"),
        data=data.DataConfig(context=11, batch_size=6),
        train=TrainConfig(
            steps=12,
            learning_rate=3e-3,
            warmup_steps=2,
            jit="off",
            log_every=1,
            eval_every=6,
            save_every=4,
        ),
    )


@pytest.fixture
def eagerly():
    """Runs a whole test op by op, but for what fixtures of its module made before."""
    with op_by_op():
        yield


def on_one_and_on_two(two_replicas, config, file, folder, tokenizer):
    """Trains on one replica, into `a`, and on two, into `b`; returns both summaries."""
    with op_by_op():
        return [
            training.train(
                config,
                file,
                file,
                folder / name,
                tokenizer=tokenizer,
                strategy=strategy,
                progress=False,
            )
            for name, strategy in (("a", None), ("b", two_replicas))
        ]


def cut_back(run_dir, copy, step):
    """Copies a run as it would stand, had it been killed right after a checkpoint."""
    shutil.copytree(run_dir, copy)
    found = {int(p.name.split("_")[1]): p for p in (copy / "checkpoints").iterdir()}
    assert step in found, sorted(found)
    for later in set(found) - set(range(step + 1)):
        shutil.rmtree(found[later])
    # It must be written anew.
    shutil.rmtree(copy / "last")


def small_model(vocab_size=13, seed=0, dropout=0.0, dtype=None, **sizes):
    """Returns a tiny GPT-2 with the same weights for the same seed."""
    keras.utils.set_random_seed(seed)
    # Each variable is traced many times in an optimizer step: biases stay out, and
    # norms have scales, which are vectors too.
    sizes = {
        "width": 6,
        "num_layers": 1,
        "num_heads": 2,
        "max_positions": 7,
        "use_bias": False,
        **sizes,
    }
    return models.build(
        models.GPT2Config(vocab_size=vocab_size, dropout=dropout, **sizes), dtype
    )
