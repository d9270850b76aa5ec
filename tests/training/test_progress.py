"""What a run shows while it trains."""

import re

import numpy as np
import pytest

from keras_llm import models
from keras_llm.training import StepResult, progress
from tests.training.conftest import small_model


@pytest.mark.parametrize("terminal", [False, True])
def test_a_log_gets_few_lines_and_a_terminal_one(
    experiment, monkeypatch, capsys, terminal
):
    monkeypatch.setattr(progress, "peak_flops", lambda _: 1e9)
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: terminal, raising=False)
    experiment = experiment.replace(train=experiment.train.replace(steps=2_000))
    one = np.ones(1, "float32")
    result = StepResult(one, 0.25 * one, 2e-3 * one, 66 * one, one > 0)
    shown = progress.Progress(experiment, small_model(), 0, shown=True, peaks=3)
    for _ in range(2_000):
        speed = shown.update(result, 66, 0.3, 0.1)
    shown.evaluated(2.5)
    shown.close()
    lines = capsys.readouterr().err.rstrip("\n").split("\n")
    assert ("\r" in lines[0]) == terminal and len(lines) == (1 if terminal else 2)
    assert "2000/2000" in lines[-1] and "valid=2.500" in lines[-1]
    # All calls but the first, which compiles, took 66 tokens in 0.1 s each.
    assert "loss=1.000, rate=2.0e-03, norm=0.25" in lines[-1]
    assert "tok/s=660" in lines[-1]
    share = 660 * models.flops_per_token(small_model().config, 11) / 3e9
    assert shown.utilisation == pytest.approx(share)
    assert f"util={share:.0%}" in lines[-1]
    assert speed == {
        "tokens_per_second": 660,
        "utilisation": pytest.approx(share, rel=1e-2),
        "input_share": 0.75,
    }
    # Three quarters of the time without a batch.
    assert "input-bound=75%" in lines[-1]
    assert re.search(r"\[\d\d:\d\d<\d\d:\d\d", lines[-1])  # Time taken, time left.
