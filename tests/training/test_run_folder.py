"""A run folder is one team's at a time."""

import pytest

from keras_llm import training
from keras_llm.training import loop
from keras_llm.training.run_folder import RunFolder


def test_a_folder_that_is_being_trained_is_refused_and_stays_as_it_is(
    experiment, texts, tmp_path, eagerly
):
    run_dir = tmp_path / "run"
    training.train(experiment, *texts, run_dir, progress=False)
    before = {path: path.stat().st_mtime_ns for path in run_dir.rglob("*")}
    other = RunFolder(run_dir)
    other.lock()
    with pytest.raises(ValueError, match=f"{run_dir}, which another one is training"):
        training.train(experiment, *texts, run_dir, resume=True, progress=False)
    assert {path: path.stat().st_mtime_ns for path in run_dir.rglob("*")} == before
    other.unlock()
    summary = training.train(experiment, *texts, run_dir, resume=True, progress=False)
    assert summary.step == experiment.train.steps


def test_a_run_that_ended_by_an_error_gives_its_folder_back(
    experiment, texts, tmp_path, eagerly, monkeypatch
):
    def fail(*_):
        raise ZeroDivisionError

    monkeypatch.setattr(loop.Checkpoints, "save", fail)
    with pytest.raises(ZeroDivisionError):
        training.train(experiment, *texts, tmp_path / "run", progress=False)
    folder = RunFolder(tmp_path / "run")
    folder.lock()
    folder.unlock()
