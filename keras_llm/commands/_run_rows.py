"""What a run folder says of its run, read from its files alone."""

import datetime
import math
import os
import pathlib
import statistics
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import safetensors

from keras_llm.core import flattened, read_json, read_metrics


class Run(NamedTuple):
    """A run folder.

    Attributes:
        folder: Where it lies.
        config: Its fields by dotted names; none where config.json cannot be read.
        lines: Of its metrics.jsonl.
        problem: What is wrong with the folder, or "".
    """

    folder: pathlib.Path
    config: dict[str, Any]
    lines: list[dict[str, Any]]
    problem: str


def find_runs(folders: Iterable[str]) -> list[Run]:
    """Returns the run folders at or below some folders, by path.

    What holds a metrics.jsonl or checkpoints/ is one, whole or damaged.
    """
    found = {path.resolve(): path for folder in folders for path in _below(folder)}
    return [_read(path) for path in sorted(found.values())]


def _below(folder: str) -> Iterator[pathlib.Path]:
    for path, inner, files in os.walk(folder):
        if "metrics.jsonl" in files or "checkpoints" in inner:
            inner.clear()  # No run lies within a run.
            yield pathlib.Path(path)


def _read(folder: pathlib.Path) -> Run:
    problem, config = "", {}
    try:
        config = flattened(read_json(folder / "config.json"))
    except (OSError, ValueError, AttributeError) as error:
        problem = f"config.json: {error}"
    try:
        lines = read_metrics(folder / "metrics.jsonl")
    except (OSError, UnicodeDecodeError) as error:
        lines, problem = [], problem or f"metrics.jsonl: {error}"
    return Run(folder, config, lines, problem)


def row(run: Run) -> dict[str, Any]:
    """Returns a run's figures by column; None for what its folder does not say."""
    losses = _figures(run, "loss")
    judged = _figures(run, "valid_loss")
    speeds = [speed for _, speed in _figures(run, "tokens_per_second")]
    best = min(judged, key=lambda pair: pair[1], default=(None, None))
    step = max((line["step"] for line in run.lines), default=None)
    steps = run.config.get("train.steps")
    return {
        "run": str(run.folder),
        "model": run.config.get("model.architecture"),
        "parameters": _parameters(run.folder),
        "step": step,
        "steps": steps,
        "state": "ended" if (run.folder / "last").is_dir() else "unfinished",
        "loss": losses[-1][1] if losses else None,
        "valid_loss": judged[-1][1] if judged else None,
        "best": best[1],
        "best_step": best[0],
        "tokens_per_second": statistics.median(speeds) if speeds else None,
        "written": _written(run.folder),
        "problem": run.problem or None,
    }


def differing(runs: list[Run]) -> list[dict[str, Any]]:
    """Returns a row for each config field that runs do not have alike."""
    names = sorted({name for run in runs for name in run.config})
    rows = []
    for name in names:
        values = [run.config.get(name) for run in runs]
        if any(value != values[0] for value in values):
            shown = {str(run.folder): v for run, v in zip(runs, values, strict=True)}
            rows.append({"field": name, **shown})
    return rows


def _figures(run: Run, name: str) -> list[tuple[int, float]]:
    """Returns the steps and values of a figure, what is null or no number left out."""
    return [
        (line["step"], line[name])
        for line in run.lines
        if isinstance(line.get(name), (int, float)) and math.isfinite(line[name])
    ]


def _parameters(folder: pathlib.Path) -> int | None:
    """Returns the number of values in the newest model folder, if there is one."""
    for name in ("last", "best"):
        path = folder / name / "model.safetensors"
        try:
            with safetensors.safe_open(path, framework="numpy") as file:
                shapes = [file.get_slice(key).get_shape() for key in file.keys()]
        except (OSError, safetensors.SafetensorError):
            continue
        return sum(math.prod(shape) for shape in shapes)
    return None


def _written(folder: pathlib.Path) -> str:
    """Returns when the run last wrote, to the minute, in local time."""
    places = [folder, folder / "metrics.jsonl", folder / "checkpoints"]
    newest = max(path.stat().st_mtime for path in places if path.exists())
    return datetime.datetime.fromtimestamp(newest).strftime("%Y-%m-%d %H:%M")
