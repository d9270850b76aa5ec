"""What workers tell one another; of several, tests/training/test_workers.py."""

import pytest
import tensorflow as tf

from keras_llm.training import agreement


@pytest.fixture
def alone():
    return agreement.Agreement(tf.distribute.get_strategy())


def test_one_worker_agrees_with_itself(alone):
    assert alone.total([1.5, -2.0]) == [1.5, -2.0]
    assert alone.mean(0.25) == 0.25
    assert alone.any(True) and not alone.any(False)
    assert alone.gather("är\n") == ["är\n"]
    assert alone.from_chief("step_00000010") == "step_00000010"
    alone.check_same({"width": 8})


def test_its_own_error_goes_on(alone):
    with pytest.raises(ZeroDivisionError), alone.together():
        raise ZeroDivisionError


class Three(agreement.Agreement):
    """The second of three workers, which hears what it is given."""

    def __init__(self, heard):
        super().__init__(tf.distribute.get_strategy())
        self.heard, self.said = heard, []

    def gather(self, text):
        self.said.append(text)
        return [other if other is not None else text for other in self.heard]


def test_a_refusal_elsewhere_is_one_here_too():
    team = Three(["", None, "DataError: no text"])
    with pytest.raises(agreement.OtherWorkerError, match="worker 2: DataError: no te"):
        with team.together():
            pass
    with pytest.raises(ValueError, match="mine"), team.together():
        raise ValueError("mine")
    assert team.said == ["", "ValueError: mine"]


@pytest.mark.parametrize(
    ("others", "reason"),
    [
        (['{"a": 1, "b": 2}', None, '{"a": 1, "b": 3}'], "b=2 at worker 0, b=3 .* 2"),
        (['{"a": 5, "b": 2}', None, '{"a": 5, "b": 2}'], "a=5 at worker 0, a=1 .* 1"),
        (['{"a": 1, "b": 2}', None, '{"a": 1}'], "b=2 at worker 0, b=None at worker 2"),
    ],
)
def test_the_first_difference_is_named(others, reason):
    with pytest.raises(ValueError, match=reason):
        Three(others).check_same({"b": 2, "a": 1})


@pytest.mark.parametrize(
    ("kind", "message", "who"),
    [
        (
            "UnavailableError",
            "Aborted by /job:worker/task:2: unhealthy:\n/job:worker/replica:0/task:3",
            "worker 3",
        ),
        ("AbortedError", "Reset by /job:worker/task:1", "worker 1"),
        ("UnavailableError", "Connection reset by peer", "another worker"),
        (
            "DeadlineExceededError",
            "Aborted\nRPC: /tensorflow.CoordinationService/Heartbeat",
            "worker 0",
        ),
    ],
)
def test_a_lost_worker_is_told_from_an_error_of_ones_own(alone, kind, message, who):
    error = getattr(tf.errors, kind)(None, None, message)
    with pytest.raises(type(error)), alone.lost_worker_named():
        raise error
    alone.team = alone.team._replace(number=4)
    with pytest.raises(agreement.LostWorkerError, match=f"no answer from {who}. Start"):
        with alone.lost_worker_named():
            raise error
