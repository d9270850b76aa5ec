"""The benchmarks run, at sizes that say nothing of speed."""

import json
import math
import pathlib
import random
import re
import runpy
import subprocess
import sys

import keras
import pytest

from keras_llm import models, tokenizers
from keras_llm.commands._bench_decode import benchmark_decode
from keras_llm.commands._bench_encode import benchmark_encode
from keras_llm.commands._bench_length import benchmark_length
from keras_llm.commands._bench_lstm import benchmark_lstm
from keras_llm.commands._bench_pretrained import benchmark_pretrained
from keras_llm.commands._bench_train import (
    benchmark_adapter,
    benchmark_train,
    benchmark_train_t5,
)
from tests import forked

PEERS = pathlib.Path(__file__).parents[1] / "benchmarks"
TINY = {
    "vocabulary": 31,
    "positions": 16,
    "width": 12,
    "layers": 1,
    "heads": 3,
    "dropout": 0.1,
    "prompt_tokens": 3,
    "new_tokens": 4,
    "rows": 2,
    "context": 5,
    "repeats": 1,
}


@pytest.fixture
def config():
    return models.GPT2Config(
        vocab_size=259, width=20, num_layers=1, num_heads=5, max_positions=16
    )


def positive(rows, *names):
    for row in rows:
        for name in names:
            assert math.isfinite(row[name]) and row[name] > 0, row


def test_decode(config):
    rows = benchmark_decode((2,), 3, 4, repeats=1, jit=(False,), config=config)
    assert [row["name"] for row in rows] == ["decode jit=False batch=2"]
    positive(rows, "tokens_per_second", "milliseconds_per_step", "gigabytes_per_second")
    assert rows[0]["tokens_per_second"] * rows[0]["milliseconds_per_step"] == (
        pytest.approx(2_000)
    )


def test_train(config):
    rows = benchmark_train(("float32",), 3, 8, repeats=2, jit="off", config=config)
    positive(rows, "tokens_per_second", "peak_gigaflops", "utilisation")


def test_adapter(config):
    (row,) = benchmark_adapter(("float32",), 3, 8, repeats=2, jit="off", config=config)
    positive([row], "tokens_per_second", "milliseconds_per_step", "peak_mebibytes")


def test_pretrained(config, tmp_path):
    folder = tmp_path / "model"
    keras.utils.set_random_seed(0)
    models.save(models.build(config), folder, tokenizers.ByteTokenizer())
    ways = ({"dtype": "float32"}, {"dtype": "float32", "quantize": "int8"})
    rows = benchmark_pretrained(folder, (2,), 3, 5, 4, repeats=1, ways=ways)
    assert [row.pop("name") for row in rows] == ["float32", "float32 int8"]
    positive(rows, *rows[0])
    assert rows[1]["megabytes"] < rows[0]["megabytes"]


def test_train_t5():
    config = models.T5Config(
        vocab_size=31, width=12, num_layers=1, num_heads=3, feed_forward_width=7
    )
    (row,) = benchmark_train_t5(("float32",), 2, 5, 3, repeats=1, config=config)
    assert row["name"] == "train_t5 float32 2x(5+3)"
    positive([row], "tokens_per_second", "milliseconds_per_step")
    rate = row["tokens_per_second"] * row["milliseconds_per_step"]
    assert rate == pytest.approx(16_000)


def test_encode():
    config = models.BertConfig(
        vocab_size=31, width=12, num_layers=1, num_heads=3, max_positions=8
    )
    (row,) = benchmark_encode(("float32",), 2, 5, repeats=1, config=config)
    assert row["tokens_per_second"] * row["milliseconds"] == pytest.approx(10_000)


def test_length(tmp_path):
    plot = tmp_path / "length.png"
    rows = benchmark_length((3, 5), 2, 8, repeats=1, plot=str(plot))
    assert [row.pop("length") for row in rows] == [3, 5]
    assert len(rows[0]) == 6
    positive(rows, *rows[0])
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_lstm():
    rows = benchmark_lstm(((2, 5, 7),), rounds=1)
    assert len(rows) == 1


@pytest.mark.parametrize("path", sorted(PEERS.glob("*.py")), ids=lambda path: path.stem)
def test_peers_are_python(path):
    # What they import is not in this environment, or takes seconds.
    compile(path.read_text("utf-8"), path.name, "exec")


def test_a_step_on_jax():
    flags = ["rows=2", "context=8", "vocabulary=50", "width=12", "layers=2"]
    flags += ["heads=3", "product=16", "repeats=1", "dtype=float32"]
    # Python anew: a fork of what has imported Keras has its backend already.
    done = subprocess.run(
        [sys.executable, PEERS / "jax_step.py", "--check", *(f"--{f}" for f in flags)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout.splitlines()[-1])
    positive([row], "tokens_per_second", "product_teraflops", "share_of_product")
    assert set(row["differences"]) == {"logits", "loss", "norm"}


# Kills of a whole run in small number: tests/training/test_kills.py.
@pytest.mark.parametrize(("which", "count"), [("saves", 4), ("flips", 8)])
def test_faults_in_small_number(which, count, tmp_path):
    faults = runpy.run_path(str(PEERS / "faults.py"))
    assert faults[which](count, tmp_path, random.Random(0)) == []


# The strings of `growth` need minutes; that of `strings` is `all_strings`.
@pytest.mark.parametrize(("which", "count"), [("records", 10), ("all_strings", 100)])
def test_faults_of_data_in_small_number(which, count, tmp_path):
    faults = runpy.run_path(str(PEERS / "data_faults.py"))
    assert faults[which](count, tmp_path, random.Random(0)) == []


@pytest.mark.parametrize(("apart", "equal"), [(9e-6, True), (2e-5, False)])
def test_layouts_are_compared_step_by_step(apart, equal, tmp_path):
    """The runs themselves: tests/training/test_workers.py."""
    equality = runpy.run_path(str(PEERS / "equality.py"))
    for layout in equality["LAYOUTS"]:
        for name, moved in (("AdamW alone", 0.0), ("clipping", 0.25)):
            folder = equality["run_folder"](tmp_path, layout, name)
            folder.mkdir(parents=True)
            lines = [
                {"step": s, "loss": 1 + moved * (s == 7), "gradient_norm": 2.0}
                for s in range(1, equality["STEPS"] + 1)
            ]
            lines.append({"step": equality["STEPS"], "valid_loss": 3.0})
            if layout == "workers":
                lines[30]["gradient_norm"] += apart
            (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    row = equality["compared"](tmp_path, "clipping")
    assert row["moved by"] == 0.25 and row["last"] == 3
    assert row["workers: norm"] == pytest.approx(apart)
    assert row["replicas: loss"] == row["replicas: norm"] == 0
    assert equality["is_equal"](row) == equal


# Runs a script once per subject, as the command line would.
EVERY_SUBJECT = """
import runpy, sys
script, subjects, *flags = sys.argv[1:]
for subject in subjects.split(","):
    sys.argv = [script, subject, *flags]
    runpy.run_path(script, run_name="__main__")
"""


@pytest.fixture(scope="module")
def keras_hub_lines(tmp_path_factory):
    """What KerasHub's figures are printed as, by one process, which imports it once."""
    driver = tmp_path_factory.mktemp("driver") / "every_subject.py"
    driver.write_text(EVERY_SUBJECT)
    flags = [f"--{name}={value}" for name, value in TINY.items()]
    done = forked.run(driver, PEERS / "peer_keras_hub.py", "decode,train", *flags)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("subject", "lines"),
    [
        ("decode", [f"jit={j} batch={b}" for j in (True, False) for b in (1, 8)]),
        (
            "train",
            ["float32 jit=True", "float32 jit=False", "mixed_bfloat16 jit=False"],
        ),
    ],
)
def test_keras_hub_runs_beside(keras_hub_lines, subject, lines):
    printed = [line for line in keras_hub_lines if line.startswith(subject)]
    assert len(printed) == len(lines)
    for case, line in zip(lines, printed, strict=True):
        rate = re.fullmatch(rf"{subject} {case}: ([\d.]+) tok/s", line)
        assert rate and float(rate[1]) > 0


def test_both_peers_take_the_same_flags():
    flags = [
        re.findall(r'add_argument\("(\w+|--\w+)".*default=([\d_.]+)', text)
        for text in (
            (PEERS / f"peer_{name}.py").read_text("utf-8")
            for name in ("transformers", "keras_hub")
        )
    ]
    assert flags[0] == flags[1]
    assert {name for name, _ in flags[0]} == {f"--{name}" for name in TINY}
