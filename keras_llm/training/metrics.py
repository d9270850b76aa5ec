"""What a run tells: metrics.jsonl, TensorBoard events and a progress bar."""

import json
import math
import os
import pathlib
from typing import Any

import tensorflow as tf

from keras_llm.core import write_text


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
        self._file = open(self._path, "a", encoding="utf-8")
        self._writer = None
        if events is not None:
            self._writer = tf.summary.create_file_writer(str(events))

    def write(self, step: int, **figures: Any) -> None:
        """Appends a line; what is NaN or infinite becomes null there."""
        self._file.write(_json_line({"step": step, **figures}))
        self._file.flush()
        if self._writer is None:
            return
        with self._writer.as_default():
            for name, value in figures.items():
                if not isinstance(value, (bool, str)):
                    tf.summary.scalar(name, value, step=step)

    def flush(self) -> None:
        """Puts everything on the disk, as a checkpoint of the same step will be."""
        self._file.flush()
        os.fsync(self._file.fileno())
        if self._writer is not None:
            self._writer.flush()

    def close(self) -> None:
        """Flushes and closes."""
        self.flush()
        self._file.close()
        if self._writer is not None:
            self._writer.close()


def read_metrics(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Returns the lines of a metrics file; none if it is absent.

    A line that a kill cut short is left out.
    """
    if not os.path.exists(path):
        return []
    lines = []
    for text in pathlib.Path(path).read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except ValueError:
            continue
    return [line for line in lines if isinstance(line, dict) and "step" in line]


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


def plot_losses(metrics: str | os.PathLike[str], out: str | os.PathLike[str]) -> bool:
    """Draws training and validation loss by step into a PNG file.

    Returns:
        False where matplotlib is not installed, and nothing was drawn.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return False
    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(xlabel="step", ylabel="nats per token")
    lines = read_metrics(metrics)
    for name, label, style in (
        ("loss", "training (one step)", {"alpha": 0.5, "linewidth": 0.8}),
        ("valid_loss", "validation", {"marker": "o", "markersize": 3}),
    ):
        points = [(e["step"], e[name]) for e in lines if e.get(name) is not None]
        if points:
            axes.plot(*zip(*points, strict=True), label=label, **style)
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend()
    figure.savefig(out, dpi=120)
    return True
