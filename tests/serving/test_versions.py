import gc

import pytest

from keras_llm.serving.errors import RequestError
from keras_llm.serving.versions import Versions


class FakeModel:
    def __init__(self, version):
        self.version = version


@pytest.fixture
def base(tmp_path):
    (tmp_path / "2").mkdir()
    return tmp_path


@pytest.fixture
def versions(base, monkeypatch):
    # Fakes need none, and it takes long beside a loaded TensorFlow.
    monkeypatch.setattr(gc, "collect", lambda: 0)

    def load(folder, version):
        if (folder / "broken").exists():
            raise ValueError(f"Broken: {folder}")
        return FakeModel(version)

    started = Versions(base, load)
    started.start()
    return started


def states(versions):
    return {entry["version"]: entry["state"] for entry in versions.status()}


def test_the_highest_number_is_served(versions, base):
    assert versions.current.version == 2
    for name in ("00000010", "9", "x11", "12.tmp", "-13", "1e3", "١٤", "9" * 20):
        (base / name).mkdir()
    versions.poll()
    assert versions.current.version == 10
    assert versions.get("m", 10) is versions.get("m", None) is versions.current
    with pytest.raises(RequestError, match=r"Specific\(m, 2\)"):
        versions.get("m", 2)


def test_a_version_ends_when_its_last_request_does(versions, base):
    in_use = versions.current
    (base / "3").mkdir()
    versions.poll()
    assert states(versions) == {"3": "AVAILABLE", "2": "UNLOADING"}
    assert in_use.version == 2
    del in_use
    versions.poll()
    assert states(versions) == {"3": "AVAILABLE", "2": "END"}


def test_a_broken_version_is_reported_and_tried_when_it_changes(versions, base):
    (base / "3").mkdir()
    (base / "3" / "broken").touch()
    versions.poll()
    versions.poll()
    assert versions.current.version == 2
    assert versions.status(3) == [
        {
            "version": "3",
            "state": "END",
            "status": {"error_code": "INVALID_ARGUMENT", "error_message": "Broken: 3"},
        }
    ]
    # A later version is not held up by it.
    (base / "4").mkdir()
    versions.poll()
    assert versions.current.version == 4
    (base / "4").rmdir()
    (base / "3" / "broken").unlink()
    versions.poll()
    assert versions.current.version == 3
    assert states(versions)["3"] == "AVAILABLE"


def test_removing_a_version_goes_back_to_the_one_before(versions, base):
    (base / "3").mkdir()
    versions.poll()
    (base / "3").rmdir()
    versions.poll()
    assert versions.current.version == 2
    (base / "2").rmdir()
    versions.poll()
    assert versions.current.version == 2  # Better than nothing.


def test_ended_versions_are_forgotten_in_time(versions, base):
    for number in range(3, 40):
        (base / str(number)).mkdir()
        versions.poll()
    assert versions.current.version == 39
    assert len(versions.status()) < 12
