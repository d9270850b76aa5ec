"""The version folders of a model: which one is served, and what became of others."""

import dataclasses
import gc
import logging
import os
import pathlib
import re
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

from keras_llm.core.folders import CorruptFolderError
from keras_llm.serving.errors import Code, RequestError
from keras_llm.serving.model import Model

_log = logging.getLogger(__name__)
_NUMBER = re.compile(r"[0-9]{1,19}", re.ASCII)
_LARGEST = 2**63 - 1
# Versions that are served no more and still reported.
_REMEMBERED = 8


@dataclasses.dataclass
class _Entry:
    """What is known of one version. States have TF Serving's names."""

    state: str
    folder: pathlib.Path
    code: str = "OK"
    message: str = ""
    # The folder as it was when it failed: it is tried again once that changes.
    failed_as: tuple[Any, ...] | None = None
    model: weakref.ref[Model] | None = None


class Versions:
    """Serves the highest version of a model and follows its folder.

    A new highest version is loaded beside the one that is served and takes over when
    it is ready. If it cannot be loaded, the other stays and the new one is tried
    again when its files change. When the served version's folder is gone, the next
    highest takes over; when none is left, the model in memory stays.

    Args:
        base_path: The folder whose numeric sub-folders are versions.
        load: Returns the model of a folder and a version number, ready to serve.
    """

    def __init__(
        self, base_path: pathlib.Path, load: Callable[[pathlib.Path, int], Model]
    ):
        self._base_path = base_path
        self._load = load
        self._current: Model | None = None
        self._entries: dict[int, _Entry] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def current(self) -> Model | None:
        """The model that is served."""
        return self._current

    def start(self) -> None:
        """Loads the highest version.

        Raises:
            ValueError: There is none, or it cannot be loaded.
        """
        version, folder = self.highest()
        self._current = self._try(version, folder)
        if self._current is None:
            raise ValueError(
                f"Version {version} in {self._base_path} cannot be served: "
                f"{self._entries[version].message}"
            )

    def highest(self) -> tuple[int, pathlib.Path]:
        """Returns the highest version that the base path holds, and its folder.

        Raises:
            ValueError: There is none.
        """
        if not self._base_path.is_dir():
            raise ValueError(
                "`model_base_path` must be a folder. Received: "
                f"{self._base_path}. Check the path."
            )
        found = self._on_disk()
        base = self._base_path.absolute()
        if not found and (base / "saved_model.pb").is_file():
            raise ValueError(
                "`model_base_path` must be the folder that holds version folders. "
                f"Received: {self._base_path}, which is a version itself. Give "
                f"{base.parent}."
            )
        if not found:
            raise ValueError(
                "`model_base_path` must hold a folder whose name is a version number, "
                f"such as {self._base_path / '1'}. Received: {self._base_path} "
                "without any. Export a model to one."
            )
        return max(found.items())

    def watch(self, poll_seconds: float) -> None:
        """Starts the thread that looks for changes."""
        self._thread = threading.Thread(
            target=self._watch, args=(poll_seconds,), name="versions", daemon=True
        )
        self._thread.start()

    def stop(self) -> bool:
        """Ends the thread and returns whether it could: a load is not broken off."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=1)
        return self._thread is None or not self._thread.is_alive()

    def get(self, name: str, version: int | None) -> Model:
        """Returns the served model, if its version is the one asked for.

        Args:
            name: The model's name, for the error.
            version: None for the one that is served.

        Raises:
            RequestError: That version is not served (404).
        """
        model = self._current
        if model is None or version not in (None, model.version):
            wanted = f"Latest({name})"
            if version is not None:
                wanted = f"Specific({name}, {version})"
            raise RequestError(
                f"Servable not found for request: {wanted}", Code.NOT_FOUND
            )
        return model

    def status(self, version: int | None = None) -> list[dict[str, Any]]:
        """Returns what TF Serving's status reply has: the versions, newest first."""
        with self._lock:
            entries = sorted(self._entries.items(), reverse=True)
        return [
            {
                "version": str(number),
                "state": entry.state,
                "status": {"error_code": entry.code, "error_message": entry.message},
            }
            for number, entry in entries
            if version in (None, number)
        ]

    def poll(self) -> None:
        """Looks at the folder once and loads what should be served."""
        found = self._on_disk()
        self._forget(found)
        for version, folder in sorted(found.items(), reverse=True):
            if self._current is not None and version == self._current.version:
                break
            entry = self._entries.get(version)
            failed_as = entry.failed_as if entry else None
            if failed_as is not None and failed_as == _fingerprint(folder):
                continue
            model = self._try(version, folder)
            if model is not None:
                self._swap(model)
                break
        self._reap()

    def _watch(self, poll_seconds: float) -> None:
        while not self._stop.wait(poll_seconds):
            try:
                self.poll()
            except Exception:
                _log.exception("Looking for versions failed; trying again.")

    def _on_disk(self) -> dict[int, pathlib.Path]:
        """Returns the folders with numeric names; `00000123` is 123."""
        found: dict[int, pathlib.Path] = {}
        try:
            names = sorted(os.listdir(self._base_path))
        except OSError as error:
            _log.warning("Cannot list %s: %s", self._base_path, error)
            return found
        for name in names:
            folder = self._base_path / name
            if _NUMBER.fullmatch(name) and int(name) <= _LARGEST and folder.is_dir():
                found.setdefault(int(name), folder)
        return found

    def _try(self, version: int, folder: pathlib.Path) -> Model | None:
        fingerprint = _fingerprint(folder)
        self._set(version, _Entry("LOADING", folder))
        try:
            model = self._load(folder, version)
        except Exception as error:
            _log.debug("Loading failed.", exc_info=True)
            # Clients read this: they learn the version, not where it lies.
            message = str(error).replace(f"{self._base_path}{os.sep}", "")
            if self._current is not None:  # Else it is raised.
                _log.error("Version %d cannot be served: %s", version, message)
            code = _code_of(error).name
            self._set(
                version, _Entry("END", folder, code, message or code, fingerprint)
            )
            return None
        self._set(version, _Entry("AVAILABLE", folder, model=weakref.ref(model)))
        return model

    def _swap(self, model: Model) -> None:
        old, self._current = self._current, model
        _log.info("Version %d is served now.", model.version)
        if old is not None:
            with self._lock:
                self._entries[old.version].state = "UNLOADING"

    def _reap(self) -> None:
        """Ends the versions whose last request has finished."""
        with self._lock:
            entries = list(self._entries.values())
        for entry in entries:
            if entry.state == "UNLOADING" and entry.model and entry.model() is None:
                gc.collect()  # TensorFlow's graphs refer to themselves.
                entry.state = "END"

    def _forget(self, found: dict[int, pathlib.Path]) -> None:
        """Drops what is served no more: failures with their folder, others in time."""
        with self._lock:
            ended = [n for n, entry in self._entries.items() if entry.state == "END"]
            gone = [n for n in ended if self._entries[n].failed_as and n not in found]
            for number in {*gone, *sorted(ended)[:-_REMEMBERED]}:
                del self._entries[number]

    def _set(self, version: int, entry: _Entry) -> None:
        with self._lock:
            self._entries[version] = entry


def _fingerprint(folder: pathlib.Path) -> tuple[Any, ...]:
    """Returns the names, sizes and times of a folder's files."""
    return tuple(sorted(_file_facts(folder)))


def _file_facts(folder: pathlib.Path) -> Iterator[tuple[str, int, int]]:
    for parent, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(parent, name)
            try:
                facts = os.stat(path)
            except OSError:
                continue  # It goes as we look; the next poll sees the rest.
            yield path, facts.st_size, facts.st_mtime_ns


def _code_of(error: Exception) -> Code:
    if isinstance(error, RequestError):
        return error.code
    if isinstance(error, CorruptFolderError):
        return Code.DATA_LOSS
    if isinstance(error, FileNotFoundError):
        return Code.NOT_FOUND
    return Code.INVALID_ARGUMENT if isinstance(error, ValueError) else Code.UNKNOWN
