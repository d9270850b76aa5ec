"""A run that is killed at any moment goes on as if it had not been."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from keras_llm import models, training
from keras_llm.training import Checkpoints, RunState

ROOT = pathlib.Path(__file__).parents[2]

CONFIG = """
from keras_llm.data import DataConfig
from keras_llm.models import GPT2Config
from keras_llm.training import Experiment, TokenizerConfig, TrainConfig

def get_config():
    return Experiment(
        model=GPT2Config(
            width=8, num_layers=1, num_heads=2, max_positions=16, dropout=0.2),
        tokenizer=TokenizerConfig(kind="character"),
        data=DataConfig(context=11, batch_size=6),
        train=TrainConfig(
            steps=60, warmup_steps=3, learning_rate=3e-3, jit="off", ema_decay=0.9,
            log_every=1, eval_every=25, save_every=10, max_steps_per_call=3),
    )
"""


class Array:
    """A variable, as far as a checkpoint asks."""

    def __init__(self, value):
        self.value = np.array(value)
        self.shape = self.value.shape

    def numpy(self):
        return self.value

    def assign(self, value):
        self.value = value


def save_until_killed(folder, first):
    checkpoints = Checkpoints(folder, keep=2)
    for step in range(first, first + 10_000):
        arrays = {f"a{i}": Array(np.full(5_000, step)) for i in range(4)}
        checkpoints.save(arrays, RunState(step=step))


def test_a_kill_inside_a_save_never_costs_the_last_checkpoint(tmp_path):
    """The child only writes arrays: forking it off a process with threads is safe."""
    checkpoints = Checkpoints(tmp_path, keep=2)
    rng, step = np.random.default_rng(0), 0
    for trial in range(25):
        child = os.fork()
        if child == 0:
            try:
                save_until_killed(tmp_path, step + 1)
            finally:
                os._exit(1)
        while trial == 0 and not checkpoints.paths():
            time.sleep(0.001)
        time.sleep(rng.uniform(0.005, 0.08))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        checkpoints.remove_leftovers()
        newest = checkpoints.newest_whole()
        # What has its final name is whole: the newest is never passed over.
        assert newest == checkpoints.paths()[0]
        arrays = {f"a{i}": Array(np.zeros(5_000, int)) for i in range(4)}
        state = checkpoints.restore(newest, arrays)
        assert state.step >= step
        assert all((array.value == state.step).all() for array in arrays.values())
        step = state.step
    assert step > 1


def losses(run_dir):
    return {
        line["step"]: line["loss"]
        for line in training.read_metrics(run_dir / "metrics.jsonl")
        if "loss" in line
    }


def start(folder, texts, *flags):
    """Starts the command, to begin or go on."""
    return subprocess.Popen(
        [
            sys.executable, str(ROOT / "scripts" / "train.py"),
            f"--config={folder / 'config.py'}", f"--train_text={texts[0]}",
            f"--valid_text={texts[1]}", f"--run_dir={folder / 'killed'}",
            "--resume", "--noprogress", *flags,
        ],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def interrupt(process, run_dir, step, kind):
    """Sends a signal once the run has come to `step`."""
    deadline = time.monotonic() + 240
    while max(losses(run_dir), default=0) < step and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    process.send_signal(kind)
    return process.communicate(timeout=60)


def test_killed_and_resumed_equals_never_killed(tmp_path, texts):
    (tmp_path / "config.py").write_text(CONFIG)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    experiment = training.load_config(tmp_path / "config.py")
    training.train(experiment, *texts, whole, progress=False)

    process = start(tmp_path, texts)
    _, errors = interrupt(process, killed, 7, signal.SIGTERM)
    assert process.returncode == training.EXIT_CODE, errors
    assert "--resume" in errors and "Traceback" not in errors

    process = start(tmp_path, texts)
    interrupt(process, killed, 33, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL

    process = start(tmp_path, texts)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert "60 steps" in output and "bits per byte" in output
    assert losses(killed) == losses(whole)
    for folder in ("best", "last"):
        pairs = zip(
            models.load(whole / folder).get_weights(),
            models.load(killed / folder).get_weights(),
            strict=True,
        )
        assert all(a.tobytes() == b.tobytes() for a, b in pairs)


@pytest.mark.parametrize(
    "flag, message",
    [
        ("--train.stepps=3", "Did you mean `steps`?"),
        ("--train.steps", "--train.steps=VALUE"),
    ],
)
def test_a_users_mistake_is_one_line_and_leaves_nothing(tmp_path, texts, flag, message):
    (tmp_path / "config.py").write_text(CONFIG)
    process = start(tmp_path, texts, flag)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert message in errors and errors.count("\n") == 1 and not output
    assert not (tmp_path / "killed").exists()
