"""What goes wrong in a run is said when it happens, once."""

import logging
import re

import numpy as np
import pytest

from keras_llm.training import StepResult
from keras_llm.training.watch import Watch


def result(losses, accepted=True):
    losses = np.array(losses, "float32")
    norm = np.full_like(losses, 0.5)
    return StepResult(losses, norm, norm, norm, np.full(len(losses), accepted))


def usual(number):
    """Returns losses about 2, none further from it than 0.02."""
    return 2.0 + 0.02 * np.random.default_rng(0).uniform(-1, 1, number)


@pytest.fixture
def said(caplog):
    caplog.set_level(logging.WARNING)
    return lambda: [record.getMessage() for record in caplog.records]


def test_a_loss_that_leaps_is_named_once_until_it_is_back(said):
    watch = Watch()
    watch.steps(0, result(usual(200)))
    assert said() == []
    watch.steps(200, result([2.01, 5.0, 5.5, 5.2]))
    assert len(said()) == 1
    found = re.match(
        r"The loss leapt to 5 at step 202, from a mean of (\S+);", said()[0]
    )
    assert float(found[1]) == pytest.approx(2.0, abs=0.02)
    watch.steps(204, result([*usual(300), 9.0]))
    assert len(said()) == 2 and "to 9 at step 505" in said()[1]


@pytest.mark.parametrize(
    "losses",
    [
        [*usual(30), 5.0],  # Too early to know what is usual.
        [*usual(200), 2.4],  # Far in deviations, a fifth in size.
        np.linspace(10.0, 1.0, 300),  # Falling steeply.
        2.0 + np.random.default_rng(1).normal(0.0, 1.0, 500),  # Noise is no news.
    ],
    ids=["early", "small", "falling", "noise"],
)
def test_what_is_no_spike_is_not_named(said, losses):
    Watch().steps(0, result(losses))
    assert said() == []


def test_a_step_left_out_is_named(said):
    watch = Watch()
    watch.steps(40, result([np.nan], accepted=False))
    assert said() == ["Step 41 was left out: its loss is nan, its gradient norm 0.5."]
    watch.steps(41, result(usual(100)))
    assert len(said()) == 1  # NaN has not become the usual loss.


def test_a_run_that_waits_for_its_input_is_told_so_until_it_computes_again(said):
    watch = Watch()
    watch.seconds(3.0, 4.0)
    assert said() == []  # Too short a time.
    watch.seconds(1.0, 4.0)
    watch.seconds(9.0, 1.0)
    assert len(said()) == 1
    assert "is input-bound: making batches took 33 % of the last 12 s" in said()[0]
    watch.seconds(0.1, 12.0)
    watch.seconds(0.1, 12.0)
    assert said()[1:] == ["The run is compute-bound again."]
    watch.seconds(6.0, 5.0)  # A stall late in a run counts as one early does.
    assert len(said()) == 3 and "took 55 % of the last 11 s" in said()[2]
    assert watch.input_share == pytest.approx(19.2 / 57.2)


def test_a_run_that_computes_is_told_nothing(said):
    watch = Watch()
    assert watch.input_share is None
    watch.seconds(2.0, 98.0)
    assert said() == [] and watch.input_share == pytest.approx(0.02)
