"""A corpus larger than memory: four times the text takes the same memory."""

import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]
MIB = 2**20

# Run in a fresh process for each size: what an allocator keeps of a first run would
# count as the second's. The tokenizer is one of bytes in NumPy, without TensorFlow.
CHILD = r'''
import json, pathlib, sys
import numpy as np
from keras_llm import data

class Eager(np.ndarray):
    def numpy(self):
        return np.asarray(self)

class Ragged:
    def __init__(self, pieces):
        self.values = np.frombuffer(b"".join(pieces), np.uint8).view(Eager)
        self.starts = np.cumsum([0, *map(len, pieces)])[:-1].view(Eager)
    def row_starts(self):
        return self.starts

class Bytes:
    vocab_size = 257
    special_ids = {"end": 256}
    token_bytes = [bytes([i]) for i in range(256)] + [b""]
    def encode(self, pieces):
        return Ragged(pieces)
    def save(self, folder):
        pathlib.Path(folder).mkdir()
        pathlib.Path(folder, "tokenizer.json").write_text("{}")

def write_corpus(folder, mib):
    """Half of it in one document, half of it in many."""
    folder.mkdir()
    line = "Call me Ishmael. Some years ago, never mind how long precisely.\n"
    with open(folder / "book.txt", "w") as book:
        for _ in range(mib):
            book.write(line * (2**19 // len(line)))
    with open(folder / "letters.jsonl", "w") as letters:
        for i in range(mib * 512):
            letters.write(json.dumps({"text": f"{i} {line * 16}"}) + "\n")

def peak_bytes():
    status = pathlib.Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])

def prepare_and_read(root, mib):
    write_corpus(root, mib)
    read = data.prepare(root, Bytes(), root / "tokens")
    assert read.train.num_bytes + read.valid.num_bytes > 0.95 * mib * 2**20
    config = data.DataConfig(context=2_048, batch_size=32)
    batches = data.training_batches(root / "tokens", Bytes(), config)
    for _ in range(int(batches.batches_per_epoch) // 4):
        next(batches)
    for batch in data.validation_batches(root / "tokens", Bytes(), config):
        pass

prepare_and_read(pathlib.Path(sys.argv[1]), int(sys.argv[2]))
assert "tensorflow" not in sys.modules
print(peak_bytes())
'''


def peak_bytes(folder, mib):
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(folder), str(mib)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_four_times_the_text_takes_the_same_memory(tmp_path):
    once = peak_bytes(tmp_path / "once", 6)
    four_times = peak_bytes(tmp_path / "four times", 24)
    # The 18 MiB more are 36 MiB of tokens, of which none stays: 2 to 4 MiB more were
    # seen, which is what the allocator keeps.
    assert four_times - once < 9 * MIB
