"""The first command of the README, with few steps."""

import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

from tests.repository import look_like_the_repository

# A Python that trains a smaller model, which is enough to be proven and served: one
# block of four, few token ids, and no XLA, by which the README's example is trained.
SMALLER = (
    "--model.num_layers=1 --model.width=48 --tokenizer.vocab_size=320 "
    "--data.context=32 --train.jit=off"
)
PYTHON = f"""#!/usr/bin/env bash
case ${{1:-}} in *train.py) set -- "$@" {SMALLER} ;; esac
exec {sys.executable} "$@"
"""


def start(folder: pathlib.Path, *arguments: str) -> subprocess.Popen:
    """Starts the quickstart in a folder that looks like the repository."""
    look_like_the_repository(folder)
    python = folder / "python"
    python.write_text(PYTHON)
    python.chmod(0o755)
    return subprocess.Popen(
        ["bash", "scripts/quickstart.sh", f"--python={python}", *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        # A test run in the background ignores Ctrl-C, and its children would too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def test_it_trains_exports_serves_and_ends(tmp_path):
    process = start(tmp_path, "--steps=4", '--prompt=It\'s a "whale"')
    shown, _ = process.communicate()
    assert process.returncode == 0, shown
    stages = [f"[{number}/5] " for number in range(1, 6)]
    assert [shown.count(stage) for stage in stages] == [1] * 5
    assert re.search(r"[\d.]+ nats per token, [\d.]+ bits per byte", shown)
    assert '\nIt\'s a "whale"' in shown, "the prompt and its continuation"
    line = re.search(r"\$ curl --data (.*) http://127\.0\.0\.1:(\d+)/", shown)
    said = subprocess.run(["bash", "-c", f"printf %s {line[1]}"], capture_output=True)
    row = json.loads(said.stdout)["instances"][0]
    assert row["prompt"] == 'It\'s a "whale"'
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", int(line[2]))) != 0, "still served"
    assert not processes_of(process.pid)


def test_ended_while_training_it_leaves_no_process(tmp_path):
    process = start(tmp_path, "--steps=100000")
    while not any("train.py" in line for line in processes_of(process.pid)):
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    process.communicate()
    assert process.returncode != 0
    assert not processes_of(process.pid)


def processes_of(session: int) -> list[str]:
    """Returns the command lines of a session's processes."""
    found = []
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == session and fields[0] != "Z":
                found.append((folder / "cmdline").read_text())
        except OSError:  # It ended while being looked at.
            continue
    return found
