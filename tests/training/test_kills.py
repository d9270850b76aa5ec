"""A run that is killed at any moment goes on as if it had not been."""

import os
import shutil
import signal
import sys
import time

import numpy as np
import pytest

from benchmarks.faults import Array, losses, steps_of_calls, write_program
from keras_llm import models, training
from keras_llm.training import Checkpoints, RunState
from keras_llm.training.run_folder import RunFolder
from tests import forked

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
            log_every=4, eval_every=25, save_every=10, max_steps_per_call=3),
    )
"""


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
        checkpoints.mend()
        newest = checkpoints.newest_whole()
        # What has its final name is whole: the newest is never passed over.
        assert newest == checkpoints.paths()[0]
        arrays = {f"a{i}": Array(np.zeros(5_000, int)) for i in range(4)}
        state = checkpoints.restore(newest, arrays)
        assert state.step >= step
        assert all((array.value == state.step).all() for array in arrays.values())
        step = state.step
    assert step > 1


def die_before_operation(number):
    """Ends this process, uncleaned, just before its `number`-th file operation."""
    left = [number]

    def hook(event, _):
        if event.startswith(("os.", "open")):
            left[0] -= 1
            if left[0] == 0:
                os._exit(9)

    sys.addaudithook(hook)


@pytest.mark.parametrize("damaged", [False, True])
def test_a_kill_at_any_point_of_a_second_save_leaves_a_whole_one(tmp_path, damaged):
    checkpoints, old = Checkpoints(tmp_path, keep=1), 3 if damaged else 4
    for number in range(1, 1_000, 3 if damaged else 1):
        shutil.rmtree(tmp_path)
        before = checkpoints.save({"a": Array(np.full(5, 4))}, RunState(step=4))
        if damaged:
            os.truncate(before / "arrays.safetensors", 9)
            # Stays, though a later step is there and one is kept.
            checkpoints.save({"a": Array(np.full(5, 3))}, RunState(step=3))
        child = os.fork()
        if child == 0:
            try:
                die_before_operation(number)
                checkpoints.save({"a": Array(np.full(5, 5))}, RunState(step=4))
            finally:
                os._exit(0)
        _, status = os.waitpid(child, 0)
        checkpoints.mend()
        array = Array(np.zeros(5, int))
        state = checkpoints.restore(checkpoints.newest_whole(), {"a": array})
        assert (state.step, *set(array.value)) in {(old, old), (4, 5)}, number
        assert all(name.startswith("step_") for name in os.listdir(tmp_path))
        if os.waitstatus_to_exitcode(status) == 0:
            break
    assert 20 < number < 990 and set(array.value) == {5}


def test_going_on_mends_a_model_folder_that_a_kill_left_aside(tmp_path, experiment):
    folder = RunFolder(tmp_path)
    for name in (".best.old", ".last.new", "..best.new.x.tmp"):
        (tmp_path / name).mkdir()
    folder.go_on(experiment)
    assert sorted(os.listdir(tmp_path)) == ["best", "config.json"]


def start(folder, texts, *flags):
    """Starts the command, to begin or go on."""
    return forked.Forked(
        write_program(folder),
        f"--config={folder / 'config.py'}",
        f"--train_text={texts[0]}",
        f"--valid_text={texts[1]}",
        f"--run_dir={folder / 'killed'}",
        "--resume",
        "--noprogress",
        *flags,
    )


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
    # Kills come between calls and inside them: of three steps, and of fewer.
    assert max(steps_of_calls(tmp_path)) == 3
    assert losses(killed) == losses(whole)
    assert list(losses(whole)) == list(range(4, 61, 4))
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
