"""The training loop: steps, and at their intervals logs, evaluations, checkpoints."""

import contextlib
import dataclasses
import logging
import math
import os
import pathlib
import time
from typing import Any, NoReturn

import keras
import tensorflow as tf

from keras_llm import models
from keras_llm.core import read_metrics, write_json
from keras_llm.core.run_plots import plot_run
from keras_llm.training.agreement import Agreement
from keras_llm.training.call_length import CallLength
from keras_llm.training.checkpoints import Checkpoints, RunState, named_arrays
from keras_llm.training.experiment import Experiment
from keras_llm.training.finiteness import check_finite
from keras_llm.training.flops import number_of_peaks
from keras_llm.training.interruption import AskedToEnd, Interruption
from keras_llm.training.metrics import MetricsLog
from keras_llm.training.progress import Progress
from keras_llm.training.reduction import measure_reduction
from keras_llm.training.replicas import Spreader, check_strategy, stacked
from keras_llm.training.run_folder import RunFolder
from keras_llm.training.samples import Samples
from keras_llm.training.saver import Saver
from keras_llm.training.setup import Inputs, make_step, prepare_inputs, start_from
from keras_llm.training.stalls import Stalls
from keras_llm.training.step import StepResult
from keras_llm.training.summary import Summary
from keras_llm.training.task import Judgement
from keras_llm.training.watch import Watch

_log = logging.getLogger(__name__)


def train(
    experiment: Experiment,
    train_text: Any,
    valid_text: Any,
    run_dir: str | os.PathLike[str],
    resume: bool = False,
    tokenizer: Any = None,
    progress: bool = True,
    strategy: tf.distribute.Strategy | None = None,
    init: str | os.PathLike[str] | None = None,
) -> Summary:
    """Trains a model and leaves everything in `run_dir`.

    Args:
        experiment: What to train and how.
        train_text: Files, folders, globs, or a folder from `data.prepare`; what they
            must hold depends on `experiment.task`.
        valid_text: Likewise; None holds a share of `train_text` back.
        run_dir: Gets config, tokenizer, checkpoints, metrics and the model
            folders `best` and `last`.
        resume: Go on with the run in `run_dir` exactly where its newest whole
            checkpoint stands; begin it if there is none.
        tokenizer: None trains `experiment.tokenizer` on the training text.
        progress: Whether to draw a progress bar on standard error.
        strategy: Spreads the work over devices; None for the current one.
        init: A model folder to start from: its tokenizer, and its weights wherever
            path and shape agree (`models.transfer_weights`); of an ELECTRA those of
            the discriminator. It is read once, when the run begins.

    Raises:
        FileExistsError: There is a run in `run_dir`, and `resume` is False.
        ValueError: Text, config or strategy that cannot be used; nothing is left
            behind.
        NonFiniteError: `max_bad_steps` steps in a row met NaN or infinity.
        Preempted: SIGTERM came, to this worker or another; a checkpoint was saved
            first.
        OtherWorkerError: Another worker refused to begin; the message tells why.
        LostWorkerError: Another worker is gone.
    """
    strategy = strategy or tf.distribute.get_strategy()
    check_strategy(strategy)
    agreement = Agreement(strategy)
    with agreement.lost_worker_named():
        with agreement.together():
            inputs = prepare_inputs(
                experiment,
                train_text,
                valid_text,
                RunFolder(run_dir),
                resume,
                tokenizer,
                strategy,
                init,
            )
        agreement.check_same(inputs.identity())
        with Interruption() as interruption:
            try:
                run = _Run(inputs, strategy, agreement, interruption, progress)
                return run.to_the_end()
            finally:
                inputs.folder.unlock()


class _Run:
    """One run in this process."""

    def __init__(
        self,
        inputs: Inputs,
        strategy: tf.distribute.Strategy,
        agreement: Agreement,
        interruption: Interruption,
        progress: bool,
    ):
        self.inputs = inputs
        self.config = inputs.experiment.train
        self.folder = inputs.folder
        self.interruption = interruption
        self.task = inputs.experiment.task
        self.agreement = agreement
        self.is_chief = agreement.team.is_chief
        with agreement.together():
            self._make(strategy)
        # By itself: a failure within the block would meet this reduction.
        self.reduction = measure_reduction(strategy, self.step.weights)
        # Only now: what the model or its step refuses leaves no folder behind.
        newest = self._open_folder()
        with agreement.together():
            self.state = self.saved = self._restore(newest)
        self.validation: Judgement | None = None
        self.last_loss: float | None = None
        self.watch, self.stalls = Watch(), Stalls()
        self.seconds_before = self.state.seconds
        self.begun = time.perf_counter()
        self.call_length = CallLength(self.config)
        self.log = (
            MetricsLog(self.folder.metrics, self.folder.events, self.state.step)
            if self.is_chief
            else None
        )
        self.progress = Progress(
            inputs.experiment,
            self.model,
            self.state.step,
            shown=progress and self.is_chief,
            peaks=number_of_peaks(strategy) if self.is_chief else 0,
        )

    def _make(self, strategy: tf.distribute.Strategy) -> None:
        """Makes everything that holds variables, in the strategy's scope."""
        experiment, config = self.inputs.experiment, self.config
        self.checkpoints = Checkpoints(self.folder.checkpoints, config.keep_checkpoints)
        self.saver = Saver(self.checkpoints, config.save_in_background)
        keras.utils.set_random_seed(config.seed)
        if config.deterministic:
            tf.config.experimental.enable_op_determinism()
        with strategy.scope():
            self.model = models.build(experiment.model, dtype=config.dtype)
            self.notes = self._start_from(self.inputs.init)
        rows = experiment.data.batch_size
        self.step = make_step(self.model, config, strategy, rows, self.task)
        self.optimizer = self.step.optimizer
        self.validator = self.task.validator(
            strategy, self.model, self.inputs.validation
        )
        self.samples = None
        if prompts := config.sample_prompts:
            self.samples = Samples(
                self.model, self.inputs.tokenizer, prompts, config.sample_tokens
            )
        self.spread = Spreader(strategy, experiment.data.batch_size)
        self.arrays = named_arrays(self.model, self.optimizer, self.step.state)
        self.checkpoints.warn_if_short_of_room(self.arrays)

    def _start_from(self, init: Any) -> list[str]:
        """Takes over a model folder's weights; says which not.

        Beside an adapter they are no part of the checkpoints: they are read each time.
        """
        adapter = self.inputs.experiment.adapter
        if init is None or (self.checkpoints.paths() and adapter is None):
            return []
        note = start_from(self.model, init, adapter, self.config.seed)
        _log.info(note)
        return [note]

    def _open_folder(self) -> pathlib.Path | None:
        """Makes the run folder or goes on in it; returns the checkpoint to go on from.

        The chief alone writes, and it alone looks for the checkpoint: another worker
        might look while it is being mended.
        """
        newest = None
        with self.agreement.together():
            if self.is_chief:
                self.inputs.open_folder()
                self.checkpoints.mend()
                newest = self.checkpoints.newest_whole()
        name = self.agreement.from_chief(newest.name if newest else "")
        return self.checkpoints.folder / name if name else None

    def _restore(self, newest: pathlib.Path | None) -> RunState:
        judged_by = self.inputs.validation
        if newest is None:
            state = RunState(validation_sha256=judged_by.sha256)
            if self.notes and self.is_chief:
                # Ended before its first save, the run still goes on from these weights.
                self.checkpoints.save(self.arrays, state)
            return state
        state = self.checkpoints.restore(newest, self.arrays)
        self.inputs.batches.restore(state.data_position)
        if state.validation_sha256 != judged_by.sha256:
            raise ValueError(
                "A run goes on with the validation text that it began with, or its "
                "best model would be chosen by losses that do not compare. Received: "
                f"another text than in {newest}. Give the same, or start a new run."
            )
        return state

    def to_the_end(self) -> Summary:
        """Runs what is left of the run."""
        with contextlib.ExitStack() as closing:
            closing.enter_context(self.saver)
            if self.log:
                closing.callback(self.log.close)
            closing.callback(self.stalls.close)
            closing.callback(self.progress.close)
            try:
                self._take_steps()
                return self._finish()
            except AskedToEnd:
                self._leave()

    def _take_steps(self) -> None:
        if self.state.evaluation_due:
            self._at_intervals()
        while self.state.step < self.config.steps and not self._out_of_patience():
            self._call()
            self._at_intervals()
            self._check_asked()

    def _check_asked(self) -> None:
        """Raises AskedToEnd once a signal has come to a worker, at all of them."""
        if self.agreement.any(self.interruption.received is not None):
            raise AskedToEnd

    def _out_of_patience(self) -> bool:
        patience = self.config.patience
        return patience is not None and self.state.evaluations_since_best >= patience

    def _call(self) -> None:
        """Runs one or several steps without coming back to Python."""
        config, first = self.config, self.state.step
        count = self.call_length(after=first)
        begun = time.perf_counter()
        # A worker that failed to read alone would seem lost to the others.
        with self.agreement.together(), self.stalls.reading(first + 1):
            self.saver.check()
            micro_batches = [
                next(self.inputs.batches) for _ in range(count * config.accumulation)
            ]
        batches = stacked(micro_batches, count)
        tokens = sum(map(self.task.count_tokens, micro_batches))
        tokens *= self.agreement.team.number
        start = time.perf_counter()
        result = self.step.run(
            tf.constant(first, tf.int64), self.spread(batches, axis=2)
        )
        result = StepResult(*(value.numpy() for value in result))
        seconds = time.perf_counter() - start
        if self.is_chief:  # All workers see the same losses: one says so.
            self.watch.steps(first, result)
        # The first call compiles: its time says nothing about the next.
        if self.progress.calls:
            self.watch.seconds(start - begun, seconds)
            # Of all workers, or they would go on in unlike calls.
            self.call_length.seconds_per_step = self.agreement.mean(seconds / count)
        self.state = dataclasses.replace(
            self.state,
            step=first + count,
            data_position=self.inputs.batches.position(),
            tokens=self.state.tokens + tokens,
            bad_steps=self.state.bad_steps + int((~result.accepted).sum()),
        )
        speed = self.progress.update(result, tokens, start - begun, seconds)
        self.last_loss = float(result.loss[-1])
        if self.log:
            self.log.write_steps(first, result, config, speed)
        check_finite(
            result, int(self.step.bad_in_a_row.numpy()), self.config, self.state.step
        )

    def _at_intervals(self) -> None:
        """Evaluates and saves where a step is due for it."""
        config, step = self.config, self.state.step
        at_end = step == config.steps
        if at_end or (config.eval_every and step % config.eval_every == 0):
            self.state = dataclasses.replace(self.state, evaluation_due=True)
        if self.state.evaluation_due:
            self._evaluate()
        saves = config.save_every and step % config.save_every == 0
        if saves and not at_end and not self._out_of_patience():
            self._save()

    def _evaluate(self) -> None:
        with self.optimizer.averaged():
            self.validation = self.validator(self._check_asked)
            loss = self.validation.loss
            best = self.state.best_loss
            if not math.isfinite(loss):
                _log.warning(
                    "The validation loss after step %d is %s: it cannot be the best.",
                    self.state.step,
                    loss,
                )
            improved = math.isfinite(loss) and (best is None or loss < best)
            with self.agreement.together():
                if improved and self.is_chief:
                    self.folder.replace_model(
                        self.folder.best, self.model, self.inputs.tokenizer
                    )
                if self.log and self.samples:
                    self.log.write_samples(self.state.step, self.samples())
        self.state = dataclasses.replace(
            self.state,
            evaluation_due=False,
            best_loss=loss if improved else best,
            best_step=self.state.step if improved else self.state.best_step,
            evaluations_since_best=0
            if improved
            else self.state.evaluations_since_best + 1,
        )
        self.progress.evaluated(loss)
        if self.log:
            figures = self.validation.figures()
            self.log.write(
                self.state.step, **{f"valid_{n}": v for n, v in figures.items()}
            )

    def _save(self) -> None:
        if self.state == self.saved:
            return
        seconds = self.seconds_before + time.perf_counter() - self.begun
        self.saved = self.state = dataclasses.replace(self.state, seconds=seconds)
        with self.agreement.together():
            if self.log:
                self.log.flush()
            if self.is_chief:
                self.saver.save(self.arrays, self.state)

    def _leave(self) -> NoReturn:
        """Saves and raises what the signal asks for."""
        self._save()
        with self.agreement.together():
            self.saver.wait()
        self.interruption.leave(
            f"Asked to end after step {self.state.step}; a checkpoint was saved. "
            "Go on with `--resume`."
        )

    def _finish(self) -> Summary:
        """Saves, draws the curve and tells how it went."""
        self._save()
        with self.optimizer.averaged(), self.agreement.together():
            self.saver.wait()
            if self.is_chief:
                self.folder.replace_model(
                    self.folder.last, self.model, self.inputs.tokenizer
                )
        notes = [*self.notes]
        if self.log:
            self.log.flush()
            if not plot_run(read_metrics(self.folder.metrics), self.folder.plot):
                notes.append(
                    "No plot of the run: matplotlib is not installed "
                    "(pip install keras_llm[plot])."
                )
        seconds = self.seconds_before + time.perf_counter() - self.begun
        state = self.state
        summary = Summary(
            step=state.step,
            stopped_by="steps" if state.step >= self.config.steps else "patience",
            train_loss=self.last_loss,
            validation=self.validation,
            best_loss=state.best_loss,
            best_step=state.best_step,
            tokens=state.tokens,
            seconds=seconds,
            tokens_per_second=self.progress.tokens_per_second,
            utilisation=self.progress.utilisation,
            input_share=self.watch.input_share,
            reduction=self.reduction,
            parameters=models.count_parameters(self.model),
            bad_steps=state.bad_steps,
            notes=tuple(notes),
        )
        if self.is_chief:
            write_json(self.folder.summary, summary.to_dict())
        return summary
