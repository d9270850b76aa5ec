"""Several workers, each a process: they train as one, stop as one, and go on."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import safetensors.numpy

from keras_llm import training
from keras_llm.commands import launch
from tests import forked

ROOT = pathlib.Path(__file__).parents[2]
STEPS = 60
SECONDS = 120

# Rows of unlike numbers of real tokens: a mean of the workers' means would be another.
CONFIG = """
from keras_llm.data import DataConfig
from keras_llm.models import GPT2Config
from keras_llm.training import Experiment, TokenizerConfig, TrainConfig

def get_config():
    return Experiment(
        model=GPT2Config(
            width=8, num_layers=1, num_heads=2, max_positions=24, dropout={dropout}),
        tokenizer=TokenizerConfig(kind="character"),
        data=DataConfig(context=23, batch_size=4),
        train=TrainConfig(
            steps=60, warmup_steps=3, learning_rate=1e-2, jit={jit!r},
            accumulation=3, clip_norm=0.5, ema_decay=0.9, label_smoothing=0.1,
            dtype={dtype!r}, log_every={log_every}, eval_every=20, save_every=5),
    )
"""


@pytest.fixture(scope="module")
def write_config(tmp_path_factory):
    """Returns a function that writes a config file and a text for it."""
    folder = tmp_path_factory.mktemp("workers")
    lines = [f"{'tick tock ' * (i % 7)}line {i} of a text\n\n" for i in range(150)]
    (folder / "text.txt").write_text("".join(lines))

    def write(jit="parts", dtype="float32", dropout=0.0, log_every=1):
        values = {"jit": jit, "dtype": dtype, "dropout": dropout}
        values["log_every"] = log_every
        path = folder / f"{'_'.join(map(str, values.values()))}.py"
        path.write_text(CONFIG.format(**values))
        return [
            f"--config={path}",
            f"--train_text={folder / 'text.txt'}",
            f"--valid_text={folder / 'text.txt'}",
        ]

    return write


def environment():
    return os.environ | {
        "TF_NUM_INTRAOP_THREADS": "1",
        "TF_NUM_INTEROP_THREADS": "1",
        "PYTHONPATH": str(ROOT),
    }


def start(words, run_dir, workers=2):
    """Starts a training command, launched for several workers; returns the process."""
    launch = ["launch", f"--workers={workers}", "--"] if workers > 1 else []
    return subprocess.Popen(
        [sys.executable, "-m", "keras_llm.commands", *launch, "train", *words]
        + [f"--run_dir={run_dir}", "--noprogress"],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(words, run_dir, workers=2):
    process = start(words, run_dir, workers)
    output, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, output
    # The chief alone tells how it went.
    assert output.count(" parameters, ") == 1, output


def losses(run_dir, name="loss"):
    lines = training.read_metrics(pathlib.Path(run_dir) / "metrics.jsonl")
    return {line["step"]: line[name] for line in lines if name in line}


def last_weights(run_dir):
    return safetensors.numpy.load_file(run_dir / "last" / "model.safetensors")


@pytest.fixture(scope="module")
def two_workers(write_config, tmp_path_factory):
    """Returns the folder of a run of two workers that nothing disturbed."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    run(write_config(dropout=0.1), folder)
    return folder


def start_apart(words, run_dir):
    """Starts two workers of a run, without `launch`; returns their processes.

    They are forked off one that has imported TensorFlow.
    """
    words = [*words, f"--run_dir={run_dir}", "--noprogress", "--resume"]
    words.append(f"--worker_hosts={','.join(launch.free_addresses(2))}")
    program = ROOT / "scripts" / "train.py"
    return [forked.Forked(program, *words, f"--task_index={i}") for i in range(2)]


def await_checkpoint(process, run_dir, step):
    checkpoint = run_dir / "checkpoints" / f"step_{step:08d}"
    until = time.monotonic() + SECONDS
    while not checkpoint.exists():
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.01)


def ask_to_end(process, run_dir, step, workers=2):
    """Sends SIGTERM to the last worker after a checkpoint of `step`; awaits the end."""
    await_checkpoint(process, run_dir, step)
    last = process.pid
    if workers > 1:
        children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children")
        last = int(children.read_text().split()[-1])
    os.kill(last, signal.SIGTERM)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == training.EXIT_CODE, output
    return output


def check_lost(processes, run_dir, place, kind, step):
    """Sends one worker a signal; checks that the other ends, and that it says why."""
    lost, other = processes[place], processes[1 - place]
    try:
        await_checkpoint(processes[0], run_dir, step)
        lost.send_signal(kind)
        _, errors = other.communicate(timeout=60)
        assert other.returncode == training.LOST_WORKER, errors
        assert f"no answer from worker {place}. Start all workers again" in errors
        assert "Traceback" not in errors
        if kind == signal.SIGSTOP:  # Awake again, it does not go on alone.
            lost.send_signal(signal.SIGCONT)
            _, errors = lost.communicate(timeout=60)
            assert lost.returncode == training.LOST_WORKER, errors
    finally:
        for process in processes:
            process.kill()


def check_alike(run_dir, other, tolerance, log_every=1):
    for name in ("loss", "gradient_norm", "valid_loss"):
        expected, found = losses(run_dir, name), losses(other, name)
        assert len(expected) == (3 if name == "valid_loss" else STEPS)
        steps = [s for s in expected if name == "valid_loss" or not s % log_every]
        assert list(found) == steps
        expected = {step: expected[step] for step in steps}
        np.testing.assert_allclose(
            list(found.values()), list(expected.values()), rtol=0, atol=tolerance
        )


def test_one_device_two_replicas_and_two_workers_train_alike(write_config, tmp_path):
    words = write_config()
    run(words, tmp_path / "one", workers=1)
    run([*words, "--cpu_replicas=2"], tmp_path / "replicas", workers=1)
    # A call ends where a line is due: here several steps make one.
    run(write_config(log_every=4), tmp_path / "workers", workers=2)
    check_alike(tmp_path / "one", tmp_path / "replicas", 1e-5)
    check_alike(tmp_path / "one", tmp_path / "workers", 1e-5, log_every=4)
    # Begun by one worker, the run goes on with two, and then with one.
    words, changing = [*words, "--resume"], tmp_path / "changing"
    for workers, step in ((1, 5), (2, 25)):
        ask_to_end(start(words, changing, workers), changing, step, workers)
    run(words, changing, workers=1)
    check_alike(tmp_path / "one", changing, 1e-5)


def test_two_workers_train_alike_in_bfloat16_compiled_whole(write_config, tmp_path):
    """Within what a sum in another order makes of values of eight bits."""
    words = write_config(jit="full", dtype="mixed_bfloat16")
    run(words, tmp_path / "one", workers=1)
    run(words, tmp_path / "workers", workers=2)
    check_alike(tmp_path / "one", tmp_path / "workers", 2e-2)


def test_a_team_ended_by_a_signal_or_a_kill_goes_on_as_if_it_had_not_been(
    write_config, two_workers, tmp_path
):
    words, run_dir = write_config(dropout=0.1), tmp_path / "run"
    output = ask_to_end(start(words, run_dir), run_dir, step=5)
    # Both say so, after the same step, and the last checkpoint is of that step.
    ends = [line[4:] for line in output.splitlines() if "Asked to end" in line]
    assert len(ends) == 2 and ends[0] == ends[1]
    newest = sorted((run_dir / "checkpoints").glob("step_*"))[-1]
    assert f"after step {int(newest.name.removeprefix('step_'))};" in ends[0]

    # Without `launch`, which would tell of the killed worker: the other's own status.
    check_lost(start_apart(words, run_dir), run_dir, 1, signal.SIGKILL, step=30)

    run([*words, "--resume"], run_dir)
    assert losses(run_dir) == losses(two_workers)
    expected = last_weights(two_workers)
    for name, weight in last_weights(run_dir).items():
        np.testing.assert_array_equal(weight, expected[name], err_msg=name)


@pytest.mark.parametrize(
    ("place", "kind"),
    [(0, signal.SIGKILL), (0, signal.SIGSTOP), (1, signal.SIGSTOP)],
    ids=["chief killed", "chief stopped", "other stopped"],
)
def test_a_worker_notices_that_the_other_is_gone_or_stands_still(
    write_config, tmp_path, place, kind
):
    """A kill breaks a connection; one that stands still is missed by its heartbeats."""
    run_dir = tmp_path / "run"
    processes = start_apart(write_config(dropout=0.1), run_dir)
    check_lost(processes, run_dir, place, kind, step=5)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--train.learning_rate=0.5"], "train.learning_rate=0.01 at worker 0"),
        (["--train_text=absent.txt"], "No file matches 'absent.txt'"),
    ],
    ids=["another config", "no text"],
)
def test_workers_that_cannot_begin_together_do_not_begin(
    write_config, tmp_path, words, reason
):
    run_dir, common = tmp_path / "run", write_config()
    own = {word.partition("=")[0]: word for word in [*common, *words]}
    hosts = ",".join(launch.free_addresses(2))
    processes = [
        start(
            [*flags, f"--worker_hosts={hosts}", f"--task_index={index}"],
            run_dir,
            workers=1,
        )
        for index, flags in enumerate([common, own.values()])
    ]
    for process in processes:
        output, _ = process.communicate(timeout=SECONDS)
        assert process.returncode == 1 and reason in output
        assert "Traceback" not in output
    assert not run_dir.exists()


# What a worker runs whose storage goes away in the middle of a run.
FAILING = """
import itertools
from keras_llm import commands
from keras_llm.data.row_batches import EndlessBatches

read, calls = EndlessBatches.__next__, itertools.count()

def fails(self):
    if next(calls) == 20:
        raise OSError("the storage is gone")
    return read(self)

EndlessBatches.__next__ = fails
commands.run("train")
"""


def test_what_fails_at_one_worker_in_mid_run_is_told_at_all(write_config, tmp_path):
    """Not as a lost worker, upon which a scheduler would start all of them again."""
    hosts = ",".join(launch.free_addresses(2))
    flags = [*write_config(), f"--run_dir={tmp_path / 'run'}", "--noprogress"]
    flags.append(f"--worker_hosts={hosts}")
    programs = (["-m", "keras_llm.commands", "train"], ["-c", FAILING])
    processes = [
        subprocess.Popen(
            [sys.executable, *program, *flags, f"--task_index={index}"],
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for index, program in enumerate(programs)
    ]
    outputs = [process.communicate(timeout=SECONDS)[0] for process in processes]
    assert [process.returncode for process in processes] == [1, 1], outputs
    assert "Received from worker 1: OSError: the storage is gone" in outputs[0]
    assert "the storage is gone" in outputs[1]


def test_a_worker_that_does_not_come_is_not_waited_for_for_ever(write_config, tmp_path):
    own, other = launch.free_addresses(2)
    place = [f"--worker_hosts={own},{other}", "--task_index=0", "--start_timeout_s=3"]
    process = start([*write_config(), *place], tmp_path / "run", workers=1)
    said, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == training.LOST_WORKER
    assert f"nothing from {other} in 3 s. Start all workers" in said
    assert not (tmp_path / "run").exists()
