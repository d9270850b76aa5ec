"""What a command sets up before TensorFlow is imported."""

import os
import pathlib
import subprocess
import sys

from keras_llm import commands

ROOT = pathlib.Path(__file__).parents[2]

# What the pool may lend in all is known only where it is the pool that lends.
_TAKE_32_MIB = """
from keras_llm import commands
commands._prepare_environment()
import tensorflow as tf
try:
    tf.zeros((8 << 20,))
except tf.errors.ResourceExhaustedError as error:
    print("refused by", str(error).partition("by allocator ")[2].split()[0])
"""


def test_working_memory_comes_from_a_pool_that_takes_an_operators_limit():
    done = subprocess.run(
        [sys.executable, "-c", _TAKE_32_MIB],
        cwd=ROOT,
        env=os.environ | {"TF_CPU_BFC_MEM_LIMIT_IN_MB": "16"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("refused by bfc")


def test_the_pool_may_grow_to_all_memory_there_is(monkeypatch):
    monkeypatch.setattr(os, "environ", {})
    commands._prepare_environment()
    meminfo = pathlib.Path("/proc/meminfo").read_text(encoding="ascii")
    total_kib = int(meminfo.partition("MemTotal:")[2].split()[0])
    assert int(os.environ["TF_CPU_BFC_MEM_LIMIT_IN_MB"]) == total_kib >> 10


def test_an_operators_choice_stays(monkeypatch):
    monkeypatch.setattr(os, "environ", {"TF_CPU_ALLOCATOR_USE_BFC": "false"})
    commands._prepare_environment()
    assert os.environ["TF_CPU_ALLOCATOR_USE_BFC"] == "false"
