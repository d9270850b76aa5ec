"""The progress bar, and the speed it shows."""

import sys
from typing import Any

import keras

from keras_llm.training.experiment import Experiment
from keras_llm.training.flops import flops_per_token, peak_flops
from keras_llm.training.step import StepResult
from keras_llm.training.watch import INPUT_BOUND

_SECONDS_PER_LINE = 30.0  # Where standard error is no terminal, such as a log.
_KEPT = 0.9  # Of the shown loss, from one step to the next: else it jumps.


class Progress:
    """Counts tokens and time while training, and shows them on standard error.

    A terminal gets a bar; anything else a line now and then.

    Utilisation is the model's floating-point operations a second, 3 forward passes
    a token, over the peak that a square matrix product reaches on these devices.

    Args:
        experiment: Gives the number of steps and the compute dtype.
        model: Gives the operations a token.
        first_step: Steps taken before.
        shown: Whether to show anything.
        peaks: How many devices share the work, each with the peak that is measured on
            one; 0 measures none.
    """

    def __init__(
        self,
        experiment: Experiment,
        model: keras.Model,
        first_step: int,
        shown: bool,
        peaks: int = 1,
    ):
        from tqdm import tqdm

        self.calls = 0
        self.tokens = 0
        self.seconds = 0.0
        self._input_share = 0.0  # Of the last call.
        self._loss: float | None = None
        self._valid_loss: float | None = None
        self._rate = self._norm = 0.0
        self._flops = flops_per_token(model.config, experiment)
        self._peak = peaks * peak_flops(experiment.train.dtype) if peaks else None
        in_place = sys.stderr.isatty()
        seconds = 0.1 if in_place else _SECONDS_PER_LINE
        self._bar = tqdm(
            file=sys.stderr if in_place else _Lines(),
            mininterval=seconds,
            # Beyond it a thread of tqdm's refreshes the bar.
            maxinterval=max(10.0, seconds),
            total=experiment.train.steps,
            initial=first_step,
            desc="train",
            unit="step",
            disable=not shown,
            dynamic_ncols=True,
        )

    def update(
        self, result: StepResult, tokens: int, waiting: float, seconds: float
    ) -> dict[str, float]:
        """Takes note of one call's steps and returns its speed, by names.

        Args:
            result: What the steps report.
            tokens: That they read.
            waiting: Seconds until their batches were there.
            seconds: That the steps took.
        """
        self.calls += 1
        if self.calls > 1:  # The first call compiles.
            self.tokens += tokens
            self.seconds += seconds
        for loss in result.loss[result.accepted]:
            kept = _KEPT if self._loss is not None else 0.0
            self._loss = kept * (self._loss or 0.0) + (1.0 - kept) * float(loss)
        self._rate = float(result.learning_rate[-1])
        self._norm = float(result.gradient_norm[-1])
        self._input_share = waiting / (waiting + seconds)
        self._bar.update(len(result.loss))
        self._show()
        rate = tokens / seconds
        speed = {"tokens_per_second": round(rate, 1)}
        if self._peak:
            speed["utilisation"] = float(f"{rate * self._flops / self._peak:.3g}")
        speed["input_share"] = float(f"{self._input_share:.3g}")
        return speed

    def evaluated(self, loss: float) -> None:
        """Takes note of a validation loss."""
        self._valid_loss = loss
        self._show()

    @property
    def tokens_per_second(self) -> float:
        """Returns the mean speed of all calls but the first; 0 before."""
        return self.tokens / self.seconds if self.seconds else 0.0

    @property
    def utilisation(self) -> float | None:
        """Returns the share of the measured peak, or None if it was not measured."""
        if not self._peak or not self.seconds:
            return None
        return self.tokens_per_second * self._flops / self._peak

    def _show(self) -> None:
        if self._bar.disable:
            return
        figures: dict[str, Any] = {}
        if self._loss is not None:
            figures["loss"] = f"{self._loss:.3f}"
            figures["rate"] = f"{self._rate:.1e}"
            figures["norm"] = f"{self._norm:.2f}"
        if self._valid_loss is not None:
            figures["valid"] = f"{self._valid_loss:.3f}"
        if self.seconds:
            figures["tok/s"] = f"{self.tokens_per_second:,.0f}"
        if self.utilisation is not None:
            figures["util"] = f"{self.utilisation:.0%}"
        if self._input_share > INPUT_BOUND:
            figures["input-bound"] = f"{self._input_share:.0%}"
        self._bar.set_postfix(figures, refresh=False)

    def close(self) -> None:
        """Leaves the bar as it stands."""
        self._bar.close()


class _Lines:
    """A file for tqdm that ends a line where it would go back to its start."""

    def write(self, text: str) -> None:
        if text.strip():
            sys.stderr.write(text.strip() + "\n")

    def flush(self) -> None:
        sys.stderr.flush()
