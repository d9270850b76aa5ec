"""What reads a command's output may go away, as `head` does."""

import os
import pathlib
import signal
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]


def test_a_command_whose_reader_is_gone_ends_without_a_word():
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "scripts/evaluate.py", "--help"],
        cwd=ROOT,
        stdout=write,
        stderr=subprocess.PIPE,
    )
    os.close(write)
    assert done.returncode == 128 + signal.SIGPIPE
    assert done.stderr == b""
