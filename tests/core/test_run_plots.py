"""Pictures of runs: what is drawn, and whole or not at all."""

import builtins
import os

import pytest

from keras_llm.core import DiskFullError, run_plots

LINES = [
    {"step": 1, "loss": 2.5, "learning_rate": 0.1, "tokens_per_second": 900.0},
    {"step": 2, "loss": None, "learning_rate": 0.2, "tokens_per_second": 950.0},
    {"step": 2, "valid_loss": 2.25},
    {"step": 3, "loss": 2.0, "learning_rate": 0.3, "tokens_per_second": 800.0},
]


@pytest.fixture
def drawn(monkeypatch):
    """Keeps the figures that are drawn."""
    figures, finish = [], run_plots._finish

    def keep(figure, out):
        figures.append(figure)
        finish(figure, out)

    monkeypatch.setattr(run_plots, "_finish", keep)
    return figures


def curves(axes):
    return [(list(c.get_xdata()), list(c.get_ydata())) for c in axes.get_lines()]


def test_a_run_is_drawn_in_three_panels(drawn, tmp_path):
    assert run_plots.plot_run(LINES, tmp_path / "run.png")
    losses, rates, speeds = drawn[0].axes
    assert curves(losses) == [([1, 3], [2.5, 2.0]), ([2], [2.25])]
    assert curves(rates) == [([1, 2, 3], [0.1, 0.2, 0.3])]
    assert curves(speeds) == [([1, 2, 3], [900.0, 950.0, 800.0])]
    assert (tmp_path / "run.png").read_bytes().startswith(b"\x89PNG")


def test_runs_are_told_apart_by_colour_and_named(drawn, tmp_path):
    other = [{"step": 5, "loss": 1.5}, {"step": 5, "valid_loss": 1.25}]
    assert run_plots.plot_runs({"a": LINES, "b": other}, tmp_path / "runs.png")
    (axes,) = drawn[0].axes
    colours = [line.get_color() for line in axes.get_lines()]
    assert colours[0] == colours[1] != colours[2] == colours[3]
    assert axes.get_legend_handles_labels()[1] == ["a", "b"]


@pytest.mark.parametrize("lines", [[], [{"step": 1, "loss": None}]])
def test_a_run_without_figures_is_an_empty_picture(lines, tmp_path):
    assert run_plots.plot_run(lines, tmp_path / "run.png")
    assert run_plots.plot_runs({"a": lines}, tmp_path / "runs.png")


def test_a_plot_is_whole_or_the_old_one(tmp_path):
    plot = tmp_path / "run.png"
    plot.write_bytes(b"old")
    temporary = tmp_path / f".run.png.{os.getpid()}.tmp"
    temporary.symlink_to("/dev/full")
    with pytest.raises(DiskFullError, match="Free some space.*run.png"):
        run_plots.plot_run(LINES, plot)
    assert plot.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["run.png"]
    assert run_plots.plot_run(LINES, plot)
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_nothing_is_drawn(monkeypatch, tmp_path):
    real = builtins.__import__

    def refuse(name, *rest):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    assert not run_plots.plot_run(LINES, tmp_path / "run.png")
    assert not run_plots.plot_runs({"a": LINES}, tmp_path / "run.png")
    assert not os.listdir(tmp_path)
