"""Checkpoints written while the steps go on: whole, in order, no failure unsaid."""

import concurrent.futures
import itertools
import shutil
import threading
import time
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from keras_llm import training
from keras_llm.core import DiskFullError
from keras_llm.data.row_batches import EndlessBatches
from keras_llm.training import Checkpoints, RunState
from keras_llm.training.saver import Saver


class Held(Checkpoints):
    """Checkpoints that are written once they are let."""

    def __init__(self, *args):
        super().__init__(*args)
        self.let = threading.Event()

    def save(self, arrays, state):
        assert self.let.wait(60)
        return super().save(arrays, state)


def variables(value):
    return {"a": keras.Variable(np.full((2, 3), float(value)), name="a")}


def test_what_changes_after_a_save_is_not_in_it(tmp_path):
    checkpoints = Held(tmp_path, 3)
    saver, arrays = Saver(checkpoints, in_background=True), variables(5)
    saver.save(arrays, RunState(step=5))
    arrays["a"].assign(np.full((2, 3), 6.0))
    assert checkpoints.paths() == []
    saver.check()  # Not over yet: nothing to say, and no wait.
    checkpoints.let.set()
    saver.save(arrays, RunState(step=6))
    saver.wait()
    for step, path in zip((6, 5), checkpoints.paths(), strict=True):
        assert checkpoints.restore(path, arrays).step == step
        np.testing.assert_array_equal(arrays["a"], np.full((2, 3), float(step)))


def test_a_save_in_the_foreground_is_over_when_it_returns(tmp_path):
    saver = Saver(Checkpoints(tmp_path, 3), in_background=False)
    saver.save(variables(5), RunState(step=5))
    assert [path.name for path in tmp_path.iterdir()] == ["step_00000005"]


@pytest.mark.parametrize("call", ["check", "wait", "save"])
def test_a_failure_in_the_background_is_raised_once(tmp_path, monkeypatch, call):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=3))
    saver, words = Saver(Checkpoints(tmp_path, 3), in_background=True), ()
    saver.save(variables(5), RunState(step=5))
    if call == "save":
        words = (variables(6), RunState(step=6))
    with pytest.raises(DiskFullError, match="needs 48 bytes, but 3 are free"):
        while True:  # Until the thread is over.
            getattr(saver, call)(*words)
    if call != "save":
        saver.wait()


def test_a_run_ends_with_what_failed_in_the_background(
    experiment, texts, tmp_path, monkeypatch
):
    save = Checkpoints.save

    def without_room(checkpoints, arrays, state):
        if state.step == 8:
            raise DiskFullError(28, "no room", "the disk")
        return save(checkpoints, arrays, state)

    monkeypatch.setattr(Checkpoints, "save", without_room)
    with pytest.raises(DiskFullError, match="no room"):
        training.train(experiment, *texts, tmp_path / "run", progress=False)
    names = [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()]
    assert names == ["step_00000004"]
    monkeypatch.undo()
    options = {"progress": False, "resume": True}
    assert training.train(experiment, *texts, tmp_path / "run", **options).step == 12


def test_the_error_that_ends_a_run_goes_on_beside_a_failed_save(
    tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=3))
    with pytest.raises(OSError, match="the storage is gone"):
        with Saver(Checkpoints(tmp_path, 3), in_background=True) as saver:
            saver.save(variables(5), RunState(step=5))
            raise OSError("the storage is gone")
    assert "was not written: [Errno 28] Writing needs 48 bytes" in caplog.text
    with pytest.raises(DiskFullError):
        with Saver(Checkpoints(tmp_path, 3), in_background=True) as saver:
            saver.save(variables(5), RunState(step=5))


def test_what_is_interrupted_while_it_waits_waits_again(tmp_path, monkeypatch):
    checkpoints = Held(tmp_path, 3)
    saver = Saver(checkpoints, in_background=True)
    saver.save(variables(5), RunState(step=5))

    def interrupted(_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(concurrent.futures, "wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            saver.wait()
    checkpoints.let.set()
    saver.wait()
    assert [path.name for path in tmp_path.iterdir()] == ["step_00000005"]


def test_a_run_that_fails_ends_after_its_save(experiment, texts, tmp_path, monkeypatch):
    ended: list[int] = []
    save, read, reads = Checkpoints.save, EndlessBatches.__next__, itertools.count()

    def slowly(checkpoints, arrays, state):
        time.sleep(0.3)
        save(checkpoints, arrays, state)
        ended.append(state.step)

    def until_the_fifth_step(batches):
        if next(reads) == 4:
            raise OSError("the storage is gone")
        return read(batches)

    monkeypatch.setattr(Checkpoints, "save", slowly)
    monkeypatch.setattr(EndlessBatches, "__next__", until_the_fifth_step)
    with pytest.raises(OSError, match="the storage is gone"):
        training.train(experiment, *texts, tmp_path / "run", progress=False)
    # The folder is another's from here on: nothing is written any more.
    assert ended == [4]
