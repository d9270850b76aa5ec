"""KL weights: written out step by step, and in a graph."""

import math

import numpy as np
import pytest

from keras_llm.ops import kl_weight
from tests.conformance.comparing import graph

STEPS = np.arange(30)


def cyclical(step, steps, cycles, rising):
    """Fu et al. as published, with t - 1 the step from 0; whole cycles only."""
    period = steps // cycles
    share = (step % period) / period
    return min(share / rising, 1.0) if step < steps else 1.0


SCHEDULES = {
    "constant": (kl_weight.constant, {}, lambda s: 1.0),
    "linear": (kl_weight.linear, {"steps": 7}, lambda s: min(s / 7, 1.0)),
    "cyclical": (
        kl_weight.cyclical,
        {"steps": 21, "cycles": 3, "rising": 0.5},
        lambda s: cyclical(s, 21, 3, 0.5),
    ),
    "sigmoid": (
        kl_weight.sigmoid,
        {"middle": 11, "width": 2.5},
        lambda s: 1 / (1 + math.exp((11 - s) / 2.5)),
    ),
}


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("peak", [1.0, 0.25])
def test_each_step_by_its_formula(name, peak):
    function, options, formula = SCHEDULES[name]
    expected = [peak * formula(step) for step in STEPS.tolist()]
    traced = graph(lambda step: function(step, **options, peak=peak))
    found = np.asarray(traced(STEPS.astype("int64")))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-6)
    one = np.asarray(function(5, **options, peak=peak))
    assert one.shape == () and one == pytest.approx(expected[5])


def test_cycles_that_do_not_divide_the_steps_start_where_they_should():
    """Ten steps in three cycles begin at 0, 3 1/3 and 6 2/3."""
    found = np.asarray(kl_weight.cyclical(np.arange(11), 10, 3, rising=1.0))
    expected = [(3 * step % 10) / 10 for step in range(10)] + [1.0]
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("function", "options", "said"),
    [
        (kl_weight.constant, {"peak": -1.0}, "`peak`"),
        (kl_weight.linear, {"steps": 0}, "`steps`"),
        (kl_weight.cyclical, {"steps": 9, "cycles": 0}, "`cycles`"),
        (kl_weight.cyclical, {"steps": 9, "rising": 0.0}, "`rising`"),
        (kl_weight.cyclical, {"steps": 9, "rising": float("nan")}, "`rising`"),
        (kl_weight.sigmoid, {"middle": 9, "width": 0.0}, "`width`"),
        (kl_weight.sigmoid, {"middle": -9, "width": 1.0}, "`middle`"),
    ],
)
def test_bad_numbers_are_refused(function, options, said):
    with pytest.raises(ValueError, match=said):
        function(1, **options)
