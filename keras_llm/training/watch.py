"""What goes wrong in a run without ending it, said when it happens."""

import logging
import math

from keras_llm.training.step import StepResult

_log = logging.getLogger(__name__)

_KEPT = 0.98  # Of the mean loss and of its deviation, from one step to the next.
_FIRST_STEPS = 50  # Until these are taken there is no usual loss.
_DEVIATIONS = 10.0  # From the mean, in mean absolute deviations, and
_SHARE = 0.25  # in shares of the mean: beyond both a loss is a spike.
INPUT_BOUND = 0.25  # Of the time, spent waiting for batches, that is too much.
_WINDOW_S = 10.0  # Over which that share is taken.


class Watch:
    """Warns of a loss that leaps, of refused steps and of input that is too slow.

    A spike is a loss that lies above the running mean by more than 10 mean absolute
    deviations and by more than a quarter; it is said once, until the loss is back.

    A run is bound by its input where making batches takes more than a quarter of the
    time, and else by its steps; a change is said once 10 seconds have shown it.
    """

    def __init__(self) -> None:
        self._waiting = self._computing = 0.0
        self._window_waiting = self._window_computing = 0.0
        self._mean = self._deviation = 0.0
        self._seen = 0
        self._in_spike = self._input_bound = False

    def steps(self, first: int, result: StepResult) -> None:
        """Looks at a call's losses.

        Args:
            first: Steps taken before it.
            result: What its steps report.
        """
        for i, loss in enumerate(map(float, result.loss)):
            if not result.accepted[i]:
                _log.warning(
                    "Step %d was left out: its loss is %s, its gradient norm %s.",
                    first + i + 1,
                    loss,
                    float(result.gradient_norm[i]),
                )
            elif math.isfinite(loss):
                self._loss(first + i + 1, loss, float(result.gradient_norm[i]))

    def _loss(self, step: int, loss: float, gradient_norm: float) -> None:
        above = loss - self._mean
        spike = (
            self._seen >= _FIRST_STEPS
            and above > _DEVIATIONS * self._deviation
            and above > _SHARE * abs(self._mean)
        )
        if spike and not self._in_spike:
            _log.warning(
                "The loss leapt to %.4g at step %d, from a mean of %.4g; the gradient "
                "norm is %.4g. If it does not come back, lower the learning rate or "
                "`train.clip_norm`, or look at that batch.",
                loss,
                step,
                self._mean,
                gradient_norm,
            )
        self._in_spike = spike
        kept = _KEPT if self._seen else 0.0
        if self._seen:
            self._deviation = kept * self._deviation + (1.0 - kept) * abs(above)
        self._mean += (1.0 - kept) * above
        self._seen += 1

    def seconds(self, waiting: float, computing: float) -> None:
        """Adds what a call spent on its batches and on its steps."""
        self._waiting += waiting
        self._computing += computing
        self._window_waiting += waiting
        self._window_computing += computing
        window = self._window_waiting + self._window_computing
        if window < _WINDOW_S:
            return
        share = self._window_waiting / window
        self._window_waiting = self._window_computing = 0.0
        if share > INPUT_BOUND and not self._input_bound:
            _log.warning(
                "The run is input-bound: making batches took %.0f %% of the last "
                "%.0f s. A corpus written by `prepare_data` is read faster than text.",
                100.0 * share,
                window,
            )
        elif share <= INPUT_BOUND and self._input_bound:
            _log.warning("The run is compute-bound again.")
        self._input_bound = share > INPUT_BOUND

    @property
    def input_share(self) -> float | None:
        """Returns the share of the time spent making batches; None before any."""
        total = self._waiting + self._computing
        return self._waiting / total if total else None
