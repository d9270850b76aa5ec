"""Metrics on a full disk: one error that names rule, path and remedy."""

import pytest

from keras_llm import training
from keras_llm.core import DiskFullError
from keras_llm.training import metrics


def test_a_full_disk_is_named_once(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log = metrics.MetricsLog(path, None)
    log.write(1, loss=2.5)
    file = log._file
    with open("/dev/full", "ab", buffering=0) as log._file:
        with pytest.raises(DiskFullError, match="Free some space.*metrics.jsonl"):
            log.write(2, loss=2.0)
    log._file = file
    log.close()
    assert training.read_metrics(path) == [{"step": 1, "loss": 2.5}]
