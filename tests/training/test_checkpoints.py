import logging
import os
import shutil
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from keras_llm.core import CorruptFolderError, DiskFullError
from keras_llm.training import Checkpoints, RunState


@pytest.fixture
def arrays():
    return {
        "model/a": keras.Variable(np.arange(6.0, dtype="float32").reshape(2, 3)),
        "random/0": keras.Variable(np.array([1, 2**40]), dtype="int64"),
    }


def at(step):
    return RunState(step=step, data_position={"batch": step}, best_loss=1.5)


def set_all(arrays, value):
    for variable in arrays.values():
        variable.assign(np.full(variable.shape, value))


def test_restores_arrays_and_state(tmp_path, arrays):
    checkpoints = Checkpoints(tmp_path / "c", keep=2)
    path = checkpoints.save(arrays, at(7))
    before = {n: keras.ops.convert_to_numpy(v) for n, v in arrays.items()}
    set_all(arrays, 0)
    assert checkpoints.restore(checkpoints.newest_whole(), arrays) == at(7)
    assert path == checkpoints.newest_whole()
    for name, variable in arrays.items():
        np.testing.assert_array_equal(variable, before[name])


def test_keeps_the_newest(tmp_path, arrays):
    checkpoints = Checkpoints(tmp_path / "c", keep=2)
    for step in (1, 2, 10, 100):
        checkpoints.save(arrays, at(step))
    assert [p.name for p in checkpoints.paths()] == ["step_00000100", "step_00000010"]
    assert len(os.listdir(tmp_path / "c")) == 2


def test_no_checkpoint_is_none(tmp_path):
    assert Checkpoints(tmp_path / "c", keep=2).newest_whole() is None


def damage(path, kind, rng):
    files = sorted(p for p in path.iterdir() if p.stat().st_size)
    file = files[rng.integers(len(files))]
    content = bytearray(file.read_bytes())
    place = rng.integers(len(content))
    if kind == "bit":
        content[place] ^= 1 << rng.integers(8)
    elif kind == "cut":
        del content[place:]
    file.write_bytes(bytes(content))
    if kind == "gone":
        file.unlink()


@pytest.mark.parametrize("kind", ["bit", "cut", "gone"])
def test_damage_is_found_and_the_one_before_counts(tmp_path, arrays, kind):
    rng = np.random.default_rng(3)
    for trial in range(12):
        checkpoints = Checkpoints(tmp_path / f"{kind}{trial}", keep=3)
        older = checkpoints.save(arrays, at(1))
        damage(checkpoints.save(arrays, at(2)), kind, rng)
        assert checkpoints.newest_whole() == older, trial


def test_all_damaged_is_an_error_not_a_fresh_start(tmp_path, arrays):
    checkpoints = Checkpoints(tmp_path / "c", keep=3)
    damage(checkpoints.save(arrays, at(1)), "cut", np.random.default_rng(0))
    with pytest.raises(CorruptFolderError, match="None of the 1"):
        checkpoints.newest_whole()


def test_a_save_over_a_damaged_one_replaces_it(tmp_path, arrays):
    checkpoints = Checkpoints(tmp_path / "c", keep=3)
    damage(checkpoints.save(arrays, at(1)), "cut", np.random.default_rng(0))
    path = checkpoints.save(arrays, at(1))
    assert checkpoints.newest_whole() == path


def test_another_models_arrays_are_refused_whole(tmp_path, arrays):
    checkpoints = Checkpoints(tmp_path / "c", keep=3)
    path = checkpoints.save(arrays, at(1))
    set_all(arrays, 5)
    further = {**arrays, "model/b": keras.Variable(np.zeros(2))}
    with pytest.raises(CorruptFolderError, match="model/b"):
        checkpoints.restore(path, further)
    reshaped = {**arrays, "random/0": keras.Variable(np.zeros(3))}
    with pytest.raises(CorruptFolderError, match="random/0"):
        checkpoints.restore(path, reshaped)
    np.testing.assert_array_equal(arrays["model/a"], np.full((2, 3), 5.0))


def test_leftovers_of_a_kill_are_removed(tmp_path, arrays):
    checkpoints = Checkpoints(tmp_path / "c", keep=3)
    checkpoints.save(arrays, at(1))
    (tmp_path / "c" / ".step_00000002.abc.tmp").mkdir()
    checkpoints.mend()
    assert os.listdir(tmp_path / "c") == ["step_00000001"]


def test_a_full_disk_is_told_before_and_leaves_the_old_one(
    tmp_path, arrays, monkeypatch, caplog
):
    checkpoints = Checkpoints(tmp_path / "c", keep=3)
    path = checkpoints.save(arrays, at(1))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=30))
    with caplog.at_level(logging.WARNING):
        checkpoints.warn_if_short_of_room(arrays)
    assert "needs 200 bytes, but 30 are free" in caplog.text  # 5 times 24 + 16.
    with pytest.raises(DiskFullError, match="needs 40 bytes"):
        checkpoints.save(arrays, at(2))
    assert checkpoints.newest_whole() == path
    assert os.listdir(tmp_path / "c") == [path.name]
