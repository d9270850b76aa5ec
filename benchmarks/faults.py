"""Faults in full number: runs killed, saves killed, folders damaged.

The tests do the same in small number (tests/training/test_kills.py and its
neighbours). `kills` trains one small model twice, once undisturbed and once killed
(SIGKILL) at N random moments and resumed, and compares every logged loss and the last
weights. `run_saves` does so with a run that saves after every second step, each time
at a random offset of a save. `saves` kills N saves at random offsets within them, in
a process that does nothing else. `flips` flips a bit of, or cuts, N files of
checkpoints and model folders. What fails is printed, and ends it with status 1.

Example: python benchmarks/faults.py kills run_saves saves flips
"""

import argparse
import logging
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import numpy as np

from keras_llm import models, tokenizers
from keras_llm.core import CorruptFolderError, read_metrics
from keras_llm.training import Checkpoints, RunState
from tests import forked

ROOT = pathlib.Path(__file__).parents[1]
COUNTS = {"kills": 50, "run_saves": 100, "saves": 100, "flips": 200}
STEPS_A_KILL = 40
SAVES_A_KILL = 4
SECONDS_OF_A_SAVE = 0.008

CONFIG = """
from keras_llm.data import DataConfig
from keras_llm.models import GPT2Config
from keras_llm.training import Experiment, TokenizerConfig, TrainConfig

def get_config():
    return Experiment(
        model=GPT2Config(
            width=16, num_layers=2, num_heads=2, max_positions=32, dropout=0.1),
        tokenizer=TokenizerConfig(kind="byte"),
        data=DataConfig(context=32, batch_size=4),
        train=TrainConfig(
            steps={steps}, warmup_steps=3, learning_rate=3e-3, jit="off",
            accumulation=2, ema_decay=0.9, log_every={log_every}, eval_every=0,
            save_every={save_every}, max_steps_per_call=3, deterministic=True),
    )
"""

# The training command, which notes in a file how many steps each call took.
PROGRAM = """
import pathlib, sys
sys.path.insert(0, {root!r})
from keras_llm import commands
from keras_llm.training.step import TrainStep

run = TrainStep.run

def noted(self, first_step, batches):
    with open(pathlib.Path(__file__).with_name("calls.txt"), "a") as file:
        print(len(batches["weights"]), file=file)
    return run(self, first_step, batches)

TrainStep.run = noted
commands.run("train")
"""


class Array:
    """A variable, as far as a checkpoint asks."""

    def __init__(self, value):
        self.value = value
        self.shape, self.dtype = value.shape, value.dtype

    def numpy(self):
        """Returns the value."""
        return self.value

    def assign(self, value):
        """Takes another value."""
        self.value = value


def kills(count: int, folder: pathlib.Path, rng: random.Random) -> list[str]:
    """Returns what a run killed `count` times and an undisturbed one differ in."""
    command = [sys.executable, *_training(folder, STEPS_A_KILL * (count + 1), 4, 10)]
    whole, killed = folder / "whole", folder / "killed"
    subprocess.run([*command, f"--run_dir={whole}"], cwd=ROOT, check=True)
    for number in range(count):
        target = STEPS_A_KILL * number + rng.randint(1, STEPS_A_KILL)
        process = subprocess.Popen([*command, f"--run_dir={killed}"], cwd=ROOT)
        while max(losses(killed), default=0) < target:
            if process.poll() is not None:
                return [f"the run ended by itself at kill {number + 1}"]
            time.sleep(0.002)
        time.sleep(rng.uniform(0.0, 0.05))
        process.kill()
        if process.wait() != -signal.SIGKILL:
            return [f"the run was over before kill {number + 1}"]
        print(f"kill {number + 1} of {count} at step {max(losses(killed))}", flush=True)
    subprocess.run([*command, f"--run_dir={killed}"], cwd=ROOT, check=True)
    failures = [] if max(steps_of_calls(folder)) == 3 else ["calls took one step each"]
    return failures + _differing(whole, killed)


def run_saves(count: int, folder: pathlib.Path, rng: random.Random) -> list[str]:
    """Returns what a run killed inside `count` of its saves did wrong.

    Its processes are forked off one that has imported TensorFlow: it spares most of
    the time of a start.
    """
    command = _training(folder, 2 * (SAVES_A_KILL + 1) * (count + 1), 2, 2)
    whole, killed = folder / "whole", folder / "killed"
    subprocess.run(
        [sys.executable, *command, f"--run_dir={whole}"], cwd=ROOT, check=True
    )
    command.append(f"--run_dir={killed}")
    failures, inside = [], 0
    for number in range(1, count + 1):
        process = forked.Forked(*command)
        try:
            step = _await_save(
                killed / "checkpoints", rng.randint(1, SAVES_A_KILL), process
            )
            time.sleep(rng.uniform(0.0, SECONDS_OF_A_SAVE))
        finally:
            process.kill()
        if process.wait() != -signal.SIGKILL:
            return [f"the run was over before kill {number}", *failures]
        # Looked at as a copy: to mend the run's own is the next process's part.
        copy = Checkpoints(folder / f"copy{number}", keep=2)
        shutil.copytree(killed / "checkpoints", copy.folder)
        hidden = [name for name in os.listdir(copy.folder) if name.startswith(".")]
        step = max(step, *map(_step_of, hidden), 0)
        copy.mend()
        newest = copy.newest_whole()
        found = _step_of(newest.name) if newest else 0
        print(f"kill {number} of {count} in save {step}: {found} is whole", flush=True)
        if newest and newest != copy.paths()[0]:
            failures.append(f"kill {number}: the newest checkpoint is not whole")
        if not step - 2 <= found <= step:
            failures.append(f"kill {number}: step {found} after a save of {step}")
        inside += bool(hidden)
        shutil.rmtree(copy.folder)
    print(f"{inside} of {count} kills fell inside a save")
    subprocess.run([sys.executable, *command], cwd=ROOT, check=True)
    return failures + _differing(whole, killed)


def _await_save(
    folder: pathlib.Path, number: int, process: subprocess.Popen | forked.Forked
) -> int:
    """Returns the step of the `number`-th save from now on, once it has begun."""
    seen = _unfinished(folder)
    begun: list[str] = []
    while len(begun) < number:
        if process.poll() is not None:
            raise RuntimeError(f"The run ended with {process.communicate()}.")
        new = _unfinished(folder) - seen
        begun += new
        seen |= new
        time.sleep(0.0002)
    return _step_of(begun[-1])


def _step_of(name: str) -> int:
    return int(re.search(r"step_(\d+)", name)[1])


def _unfinished(folder: pathlib.Path) -> set[str]:
    """Returns the names of the folders that saves are being written to."""
    try:
        return {name for name in os.listdir(folder) if name.endswith(".tmp")}
    except FileNotFoundError:
        return set()


def _training(
    folder: pathlib.Path, steps: int, log_every: int, save_every: int
) -> list[str]:
    """Writes config and program; returns the program and what it is given."""
    values = {"steps": steps, "log_every": log_every, "save_every": save_every}
    (folder / "config.py").write_text(CONFIG.format(**values))
    return [
        write_program(folder),
        "--noprogress",
        f"--config={folder / 'config.py'}",
        "--resume",
        f"--train_text={ROOT / 'testdata' / 'moby_dick.txt'}",
    ]


def write_program(folder: pathlib.Path) -> str:
    """Writes a training command for `steps_of_calls`; returns its path."""
    path = folder / "program.py"
    path.write_text(PROGRAM.format(root=str(ROOT)))
    return str(path)


def steps_of_calls(folder: pathlib.Path) -> list[int]:
    """Returns how many steps each call took, of all runs of a folder's program."""
    return [int(line) for line in (folder / "calls.txt").read_text().split()]


def _differing(whole: pathlib.Path, killed: pathlib.Path) -> list[str]:
    first, second = losses(whole), losses(killed)
    failures = [
        f"step {step}: {first.get(step)} and {second.get(step)}"
        for step in sorted(first.keys() | second.keys())
        if first.get(step) != second.get(step)
    ]
    name = pathlib.Path("last", "model.safetensors")
    if (whole / name).read_bytes() != (killed / name).read_bytes():
        failures.append("the last weights differ")
    return failures


def losses(run_dir: pathlib.Path) -> dict[int, float]:
    """Returns the logged loss of each step of a run."""
    lines = read_metrics(run_dir / "metrics.jsonl")
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


def saves(count: int, folder: pathlib.Path, rng: random.Random) -> list[str]:
    """Returns after which of `count` killed saves the newest was not whole."""
    checkpoints = Checkpoints(folder / "run", keep=2)
    arrays = {f"a{i}": Array(np.full(1 << 18, 0)) for i in range(4)}
    begun = time.perf_counter()
    checkpoints.save(arrays, RunState(step=0))
    duration, step, failures = time.perf_counter() - begun, 0, []
    for number in range(count):
        child = os.fork()
        if child == 0:
            for array in arrays.values():
                array.value = np.full(1 << 18, step + 1)
            try:
                checkpoints.save(arrays, RunState(step=step + 1))
            finally:
                os._exit(0)
        time.sleep(rng.uniform(0.0, 1.5 * duration))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        checkpoints.mend()
        newest = checkpoints.newest_whole()
        state = checkpoints.restore(newest, arrays)
        right = all((a.value == state.step).all() for a in arrays.values())
        if newest != checkpoints.paths()[0] or not step <= state.step <= step + 1:
            failures.append(f"save {number}: step {state.step} after {step}")
        elif not right:
            failures.append(f"save {number}: the arrays are of another step")
        step = state.step
    print(f"{step} of {count} saves were whole before their kill, {count - step} not")
    return failures


def flips(count: int, folder: pathlib.Path, rng: random.Random) -> list[str]:
    """Returns which of `count` damages were not found."""
    checkpoints = Checkpoints(folder / "checkpoints", keep=3)
    arrays = {f"a{i}": Array(np.arange(1_000.0)) for i in range(3)}
    older = checkpoints.save(arrays, RunState(step=1))
    newer = checkpoints.save(arrays, RunState(step=2))
    config = models.GPT2Config(
        vocab_size=257, width=16, num_layers=1, num_heads=2, max_positions=16
    )
    model_folder = folder / "model"
    models.save(models.build(config), model_folder, tokenizers.ByteTokenizer())
    failures = []
    for number in range(count):
        victim = newer if number % 2 else model_folder
        copy = folder / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(victim, copy)
        what = _damage(victim, rng)
        try:
            if victim is newer:
                found = checkpoints.newest_whole() == older
            else:
                models.load(model_folder)
                found = False
        except CorruptFolderError:
            found = True
        if not found:
            failures.append(f"not found: {what}")
        shutil.rmtree(victim)
        shutil.copytree(copy, victim)
    return failures


def _damage(folder: pathlib.Path, rng: random.Random) -> str:
    """Flips a bit of a file of the folder, or cuts it; returns what was done."""
    # The card is for people to edit, and so is not checked.
    files = [p for p in sorted(folder.rglob("*")) if p.is_file() and p.stat().st_size]
    file = rng.choice([path for path in files if path.name != "README.md"])
    content = bytearray(file.read_bytes())
    place = rng.randrange(len(content))
    if rng.random() < 0.5:
        bit = rng.randrange(8)
        content[place] ^= 1 << bit
        what = f"bit {bit} of byte {place} of {file}"
    else:
        del content[place:]
        what = f"{file} cut to {place} bytes"
    file.write_bytes(bytes(content))
    return what


CHECKS = {"kills": kills, "run_saves": run_saves, "saves": saves, "flips": flips}


def main() -> None:
    """Runs what is asked for and prints how it went."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("which", nargs="+", choices=COUNTS)
    parser.add_argument("--count", type=int, help="By default the full number.")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    logging.getLogger("keras_llm").setLevel(logging.ERROR)  # Damage is no news here.
    failed = False
    for which in arguments.which:
        count = arguments.count or COUNTS[which]
        begun = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            failures = CHECKS[which](
                count, pathlib.Path(folder), random.Random(arguments.seed)
            )
        seconds = time.perf_counter() - begun
        print(f"{which}: {count} faults, {len(failures)} failures, {seconds:.0f} s")
        print("".join(f"  {failure}\n" for failure in failures[:20]), end="")
        failed = failed or bool(failures)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
