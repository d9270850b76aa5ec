"""Runs listed and compared, from what their folders hold."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import safetensors.numpy

from keras_llm.commands import _run_rows

ROOT = pathlib.Path(__file__).parents[2]


def make_run(folder, name, rate, losses, ended=True):
    run = folder / name
    (run / "checkpoints").mkdir(parents=True)
    config = {"model": {"architecture": "gpt2"}, "train": {"steps": 30, "rate": rate}}
    (run / "config.json").write_text(json.dumps(config))
    lines = []
    for step, (loss, judged) in enumerate(losses, start=1):
        speed = 100.0 * step
        lines.append({"step": step, "loss": loss, "tokens_per_second": speed})
        lines.append({"step": step, "valid_loss": judged})
    text = "\n".join(map(json.dumps, lines))
    (run / "metrics.jsonl").write_text(text + '\n{"step": 9')
    model = run / ("last" if ended else "best")
    model.mkdir()
    weights = {"a": np.zeros((3, 5), "float32"), "b": np.zeros(7, "float32")}
    safetensors.numpy.save_file(weights, model / "model.safetensors")
    os.utime(run, (0, 0))
    return run


@pytest.fixture
def folder(tmp_path):
    runs = tmp_path / "runs"
    make_run(runs / "gpt", "first", 0.1, [(4.0, 3.5), (3.0, 2.5), (2.0, 3.0)])
    make_run(runs, "second", 0.2, [(5.0, 2.25), (None, None)], ended=False)
    broken = runs / "third"
    (broken / "checkpoints").mkdir(parents=True)
    (broken / "config.json").write_text("{")
    return runs


def listed(*words):
    return subprocess.run(
        [sys.executable, "scripts/runs.py", *map(str, words)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


def test_the_best_comes_first_and_the_broken_is_named(folder):
    done = listed(folder, "--json")
    second, first, third = map(json.loads, done.stdout.splitlines())
    assert first.pop("written") and second.pop("written") and third.pop("written")
    assert first == {
        "run": str(folder / "gpt" / "first"),
        "model": "gpt2",
        "parameters": 22,
        "step": 3,
        "steps": 30,
        "state": "ended",
        "loss": 2.0,
        "valid_loss": 3.0,
        "best": 2.5,
        "best_step": 2,
        "tokens_per_second": 200.0,
        "problem": None,
    }
    assert second["best"] == second["valid_loss"] == 2.25
    assert (second["step"], second["loss"], second["state"]) == (2, 5.0, "unfinished")
    assert third["run"].endswith("third") and third["problem"].startswith("config.json")
    assert third["best"] is third["model"] is third["step"] is None


def test_fields_that_differ_and_a_picture(folder):
    plot = folder / "all.png"
    done = listed(folder / "gpt", folder / "second", "--compare", f"--plot={plot}")
    table, fields = done.stdout.split("\n\n")
    assert "problem" not in table and len(table.splitlines()) == 4
    assert [line.split()[1] for line in fields.splitlines()[2:]] == ["train.rate"]
    assert fields.splitlines()[2].split()[3::2] == ["0.1", "0.2"]
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_a_run_named_twice_is_listed_once(folder):
    first = folder / "gpt" / "first"
    assert [
        r.folder for r in _run_rows.find_runs([str(first), str(folder / "gpt")])
    ] == [first]
    alone = listed(first, "--compare").stdout
    assert alone.endswith("The configs are alike.\n")


def test_no_run_is_said_so(tmp_path):
    done = listed(tmp_path)
    assert done.returncode == 1
    assert f"No run lies at or below {tmp_path}" in done.stdout + done.stderr


def test_the_list_needs_no_tensorflow(folder):
    code = (
        "import sys; sys.argv = ['runs', sys.argv[1]]\n"
        "from keras_llm.commands import run\n"
        "try: run('runs')\n"
        "finally: print('tensorflow' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.stdout.endswith("False\n"), done.stderr
