"""Pictures of what runs came to, from the lines of their metrics.jsonl."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from keras_llm.core.folders import replaced_file

Lines = Sequence[Mapping[str, Any]]


def plot_run(lines: Lines, out: str | os.PathLike[str]) -> bool:
    """Draws a run's losses, learning rate and speed by step into a PNG file.

    Args:
        lines: From `read_metrics`.
        out: The file; an older one is replaced.

    Returns:
        False where matplotlib is not installed, and nothing was drawn.

    Raises:
        core.DiskFullError: There is no room; an older file stays.
    """
    figure = _figure(height=8)
    if figure is None:
        return False
    losses, rates, speeds = figure.subplots(3, sharex=True, height_ratios=(2, 1, 1))
    _draw_losses(losses, lines, training="training (one step)", validation="validation")
    losses.set_ylabel("loss")
    for axes, name, label in (
        (rates, "learning_rate", "learning rate"),
        (speeds, "tokens_per_second", "tokens/s"),
    ):
        axes.plot(*_points(lines, name), linewidth=0.8)
        axes.set_ylabel(label)
        axes.set_ylim(bottom=0)
    speeds.set_xlabel("step")
    _finish(figure, out)
    return True


def plot_runs(runs: Mapping[str, Lines], out: str | os.PathLike[str]) -> bool:
    """Draws the losses of several runs by step into one PNG file.

    A validation loss is a line with a mark at each evaluation, a training loss a
    faint one of the same colour.

    Args:
        runs: Lines from `read_metrics`, by the run's name.
        out: As in `plot_run`, and so what is returned and raised.
    """
    figure = _figure(height=5)
    if figure is None:
        return False
    axes = figure.add_subplot(xlabel="step", ylabel="loss")
    for number, (name, lines) in enumerate(runs.items()):
        _draw_losses(axes, lines, validation=name, color=f"C{number % 10}")
    _finish(figure, out)
    return True


def _figure(height: float) -> Any:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return None
    figure = Figure(figsize=(8, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _points(lines: Lines, name: str) -> tuple[list[Any], list[Any]]:
    found = [line for line in lines if line.get(name) is not None]
    return [line["step"] for line in found], [line[name] for line in found]


def _draw_losses(
    axes: Any, lines: Lines, validation: str, training: str | None = None, **style: Any
) -> None:
    steps, losses = _points(lines, "loss")
    if steps:
        axes.plot(steps, losses, label=training, alpha=0.4, linewidth=0.8, **style)
    steps, losses = _points(lines, "valid_loss")
    if steps:
        axes.plot(steps, losses, label=validation, marker="o", markersize=3, **style)


def _finish(figure: Any, out: str | os.PathLike[str]) -> None:
    """Writes the file, whole or not at all."""
    for axes in figure.axes:
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend()
    with replaced_file(out) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
