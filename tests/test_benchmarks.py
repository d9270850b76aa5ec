"""The benchmarks run, at sizes that say nothing of speed."""

import math

import pytest

from keras_llm import models
from keras_llm.commands import benchmark
from keras_llm.commands._bench_decode import benchmark_decode
from keras_llm.commands._bench_lstm import benchmark_lstm
from keras_llm.commands._bench_train import benchmark_train


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
    rows = benchmark_train(("float32",), 3, 8, repeats=2, config=config)
    positive(rows, "tokens_per_second", "peak_gigaflops", "utilisation")


def test_lstm():
    rows = benchmark_lstm(((2, 5, 7),), rounds=1)
    assert len(rows) == 1


def test_a_table_is_markdown():
    rows = [{"name": "a", "rate": 2.0}, {"name": "b", "share": 0.123456}]
    lines = benchmark._table(rows).splitlines()
    assert lines[0] == "| name | rate | share |"
    assert lines[2:] == ["| a | 2 |  |", "| b |  | 0.1235 |"]
