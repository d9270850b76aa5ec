"""Configs, checks and folders."""

import dataclasses
import errno
import os

import pytest

from keras_llm.core import checks, config, folders


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inner(config.Config):
    steps: int = 3
    rate: float = 0.5
    sizes: tuple[int, ...] = (1, 2)
    window: int | None = None
    jit: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outer(config.Config):
    inner: Inner = Inner()
    name: str = "a"


def test_config_survives_json():
    original = Outer(inner=Inner(sizes=(5, 7), window=11, rate=1.25), name="文")
    assert Outer.from_dict(original.to_dict()) == original


def test_integers_are_read_as_floats_but_not_the_other_way():
    assert Inner.from_dict({"rate": 2}).rate == 2.0
    with pytest.raises(ValueError, match="Inner.steps.*int.*2.5"):
        Inner.from_dict({"steps": 2.5})
    with pytest.raises(ValueError, match="Inner.jit"):
        Inner.from_dict({"jit": 1})


@pytest.mark.parametrize(
    ("field", "text", "value"),
    [
        ("steps", "1_000", 1000),
        ("rate", "1e-3", 0.001),
        ("sizes", "3,5", (3, 5)),
        ("window", "7", 7),
        ("window", "none", None),
        ("jit", "true", True),
    ],
)
def test_override_parses_by_the_field_type(field, text, value):
    changed = config.override(Outer(), {f"inner.{field}": text})
    assert getattr(changed.inner, field) == value
    assert changed.name == "a"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inner.step": "1"}, "Did you mean `steps`"),
        ({"iner.steps": "1"}, "Did you mean `inner`"),
        ({"inner.steps": "many"}, "int.*many"),
        ({"inner.jit": "yes"}, "bool.*yes"),
        ({"name.x": "1"}, "plain value"),
    ],
)
def test_override_refuses(changes, message):
    with pytest.raises(ValueError, match=message):
        config.override(Outer(), changes)


def test_checks_refuse_nan():
    for check in (checks.check_positive, checks.check_not_negative):
        with pytest.raises(ValueError, match="nan"):
            check("x", float("nan"))
    with pytest.raises(ValueError, match="nan"):
        checks.check_in_range("x", float("nan"), 0, 1)


def test_a_failed_folder_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError, match="broken"):
        with folders.new_folder(tmp_path / "a") as folder:
            (folder / "half").write_text("x")
            raise RuntimeError("broken")
    assert os.listdir(tmp_path) == []


def test_an_existing_folder_is_refused_and_kept(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "kept").write_text("x")
    with pytest.raises(FileExistsError, match="never over an existing"):
        with folders.new_folder(tmp_path / "a"):
            pass
    assert os.listdir(tmp_path / "a") == ["kept"]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        # As TensorFlow and safetensors say it.
        Exception("I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_is_named_and_leaves_nothing(tmp_path, error):
    reason = "No space left .*: 1,234 bytes are needed, .* are free.*Free some.*/a'"
    with pytest.raises(folders.DiskFullError, match=reason):
        with folders.new_folder(tmp_path / "a", bytes_needed=1_234) as folder:
            (folder / "half").write_text("x")
            with folders.disk_full_named(folder / "half"):
                raise error
    assert os.listdir(tmp_path) == []


def test_a_disk_without_room_for_a_folder_is_named(tmp_path, monkeypatch):
    def full(**_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(folders.tempfile, "mkdtemp", full)
    with pytest.raises(folders.DiskFullError, match="No space left .* more are needed"):
        with folders.new_folder(tmp_path / "a"):
            pass


def test_too_little_room_is_refused_beforehand(tmp_path):
    with pytest.raises(folders.DiskFullError, match="needs"):
        folders.check_free_space(tmp_path / "not" / "yet", 2**62)
    with pytest.raises(folders.DiskFullError, match="needs"):
        with folders.new_folder(tmp_path / "a", bytes_needed=2**62):
            raise AssertionError("There is no room.")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "add", "link"])
def test_the_manifest_finds_every_damage(tmp_path, damage):
    (tmp_path / "deep").mkdir()
    file = tmp_path / "deep" / "data"
    file.write_bytes(b"seven\0!")
    folders.write_manifest(tmp_path, kind="test")
    assert folders.check_manifest(tmp_path)["kind"] == "test"
    if damage == "flip":
        file.write_bytes(b"seven\1!")
    elif damage == "cut":
        file.write_bytes(b"seven\0")
    elif damage == "remove":
        file.unlink()
    elif damage == "add":
        (tmp_path / "other").write_text("x")
    else:
        file.rename(tmp_path.parent / f"{tmp_path.name}-moved")
        file.symlink_to(tmp_path.parent / f"{tmp_path.name}-moved")
    with pytest.raises(folders.CorruptFolderError):
        folders.check_manifest(tmp_path)


def test_a_flip_anywhere_in_the_manifest_is_found(tmp_path):
    (tmp_path / "notes").write_text("notes")
    folders.write_manifest(tmp_path, kind="test", answers=16)
    path = tmp_path / "manifest.json"
    whole = path.read_bytes()
    for place in range(len(whole)):
        if whole[place : place + 1].isspace():
            continue  # Between values it means nothing.
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(folders.CorruptFolderError):
            # Of a file that people may edit nothing but its entry is checked.
            folders.check_manifest(tmp_path, editable=("notes",))


def test_editable_files_may_be_changed_added_and_removed(tmp_path):
    for name in ("data", "notes", "extra"):
        (tmp_path / name).write_text(name)
    folders.write_manifest(tmp_path)
    (tmp_path / "notes").write_text("more notes")
    (tmp_path / "extra").unlink()
    (tmp_path / "new").write_text("new")
    folders.check_manifest(tmp_path, editable=("notes", "extra", "new"))
    (tmp_path / "data").write_text("atad")
    with pytest.raises(folders.CorruptFolderError, match="data differs"):
        folders.check_manifest(tmp_path, editable=("notes", "extra", "new"))


def test_json_above_the_limit_is_refused(tmp_path):
    (tmp_path / "a.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match="may hold 10 bytes"):
        folders.read_json(tmp_path / "a.json", limit_bytes=10)
    with pytest.raises(ValueError, match="Not a JSON file"):
        folders.read_json(tmp_path / "a.json")
