"""What a run tells: metrics.jsonl and TensorBoard events."""

import contextlib
import errno
import json
import math
import os
import pathlib
from typing import Any

import tensorflow as tf

from keras_llm.core import read_metrics, write_text
from keras_llm.core.folders import disk_full_named
from keras_llm.training.config import TrainConfig
from keras_llm.training.step import StepResult


class MetricsLog:
    """Writes figures of a step to every place where they are looked for.

    Args:
        path: The file of JSON lines; lines after `first_step` are cut off, since
            a resumed run writes them anew.
        events: Folder for TensorBoard, or None.
        first_step: Steps taken before.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        events: str | os.PathLike[str] | None,
        first_step: int = 0,
    ):
        self._path = pathlib.Path(path)
        kept = [line for line in read_metrics(path) if line["step"] <= first_step]
        write_text(self._path, "".join(_json_line(line) for line in kept))
        # Without a buffer, what found no room is not tried again when closing.
        self._file = open(self._path, "ab", buffering=0)
        self._writer = None
        if events is not None:
            self._writer = tf.summary.create_file_writer(str(events))

    def write(self, step: int, **figures: Any) -> None:
        """Appends a line; what is NaN or infinite becomes null there.

        Raises:
            core.DiskFullError: There is no room for it.
        """
        with disk_full_named(self._path):
            self._append(_json_line({"step": step, **figures}).encode())
        if self._writer is None:
            return
        with disk_full_named(self._path), self._writer.as_default():
            for name, value in figures.items():
                if not isinstance(value, (bool, str)):
                    tf.summary.scalar(name, value, step=step)

    def write_steps(
        self,
        first: int,
        result: StepResult,
        config: TrainConfig,
        speed: dict[str, float],
    ) -> None:
        """Appends a line for each step of a call that is due, or was left out.

        Args:
            first: Steps taken before the call.
            result: What its steps report.
            config: Says which steps are due.
            speed: Further figures of the call, by name.
        """
        for i in range(len(result.loss)):
            step = first + i + 1
            due = step % config.log_every == 0 or step == config.steps
            if not due and result.accepted[i]:
                continue
            figures = {
                "loss": float(result.loss[i]),
                "learning_rate": float(result.learning_rate[i]),
                "gradient_norm": float(result.gradient_norm[i]),
                **speed,
            }
            if not result.accepted[i]:
                figures["skipped"] = True
            self.write(step, **figures)

    def write_samples(self, step: int, samples: list[dict[str, str]]) -> None:
        """Appends a line with what the model writes after each prompt.

        Raises:
            core.DiskFullError: There is no room for it.
        """
        with disk_full_named(self._path):
            self._append(_json_line({"step": step, "samples": samples}).encode())
        if self._writer is None:
            return
        with disk_full_named(self._path), self._writer.as_default():
            for each in samples:
                shown = f"**{each['prompt']}**{each['text']}"
                tf.summary.text(f"samples/{each['prompt']}", shown, step=step)

    def flush(self) -> None:
        """Puts everything on the disk, as a checkpoint of the same step will be."""
        with disk_full_named(self._path):
            os.fsync(self._file.fileno())
            if self._writer is not None:
                self._writer.flush()

    def close(self) -> None:
        """Flushes and closes."""
        try:
            self.flush()
        finally:
            self._file.close()
            if self._writer is not None:
                self._writer.close()

    def _append(self, line: bytes) -> None:
        """Writes a whole line or none of it."""
        whole = os.fstat(self._file.fileno()).st_size
        try:
            if self._file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            with contextlib.suppress(OSError):
                self._file.truncate(whole)
            raise


def finite_or_none(value: Any) -> Any:
    """Returns a value with None for NaN and infinity, which JSON does not have.

    >>> finite_or_none({"loss": float("nan"), "step": 3})
    {'loss': None, 'step': 3}
    """
    if isinstance(value, dict):
        return {name: finite_or_none(part) for name, part in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _json_line(figures: dict[str, Any]) -> str:
    return json.dumps(finite_or_none(figures), allow_nan=False) + "\n"
