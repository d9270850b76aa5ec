"""The folder of one run, and the model folders in it."""

import fcntl
import os
import pathlib
import shutil
from typing import Any

import keras

from keras_llm import models, tokenizers
from keras_llm.core import new_folder, read_json, write_json
from keras_llm.data.encoding import tokenizer_fingerprint
from keras_llm.models.adapter_folder import weights_sha256
from keras_llm.training.config import RESUMABLE_FIELDS
from keras_llm.training.experiment import Experiment

_CONFIG = "config.json"
_TOKENIZER = "tokenizer"
_BASE = "base.json"


class RunFolder:
    """Where a run writes: config, tokenizer, checkpoints, metrics, models.

    Args:
        path: The folder; it need not exist yet.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = pathlib.Path(path)
        self.checkpoints = self.path / "checkpoints"
        self.metrics = self.path / "metrics.jsonl"
        self.events = self.path / "events"
        self.plot = self.path / "run.png"
        self.summary = self.path / "summary.json"
        self.best = self.path / "best"
        self.last = self.path / "last"
        self._lock: int | None = None

    def exists(self) -> bool:
        """Returns whether a run was begun here."""
        return self.path.exists()

    def refuse(self) -> None:
        """Raises FileExistsError: a run is there, and none may be overwritten."""
        raise FileExistsError(
            f"A run folder holds one run. Received: {self.path}, which exists. "
            "Go on with it (`--resume`; from Python `resume=True`), or give a new name."
        )

    def lock(self) -> None:
        """Takes the folder for this process until `unlock`, or until it ends.

        Raises:
            ValueError: Another process has it.
        """
        lock = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(lock)
            raise ValueError(
                "A run is trained by one process, or one team of workers, at a time. "
                f"Received: {self.path}, which another one is training. Wait for it, "
                "end it, or give a new name."
            ) from error
        self._lock = lock

    def unlock(self) -> None:
        """Gives the folder back, if this process has it."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def check_run(self) -> None:
        """Raises ValueError if the folder is none that a run made."""
        if not (self.path / _CONFIG).is_file():
            raise ValueError(
                f"A run goes on in the folder that it made. Received: {self.path}, "
                f"which has no {_CONFIG}. Give the run's folder, or a new name."
            )

    def check_same(self, experiment: Experiment) -> None:
        """Raises ValueError, naming the field, if the run began as another."""
        begun = Experiment.from_dict(read_json(self.path / _CONFIG))
        for name, (then, now) in begun.differing_fields(experiment).items():
            if name not in RESUMABLE_FIELDS:
                raise ValueError(
                    "A run goes on as it began, but for how long it runs and what it "
                    f"watches. Received: {name}={now!r}, begun with {then!r}. Set it "
                    "back, or start a new run in another folder."
                )

    def begin(self, experiment: Experiment, tokenizer: Any, base: Any = None) -> None:
        """Makes the folder with config and tokenizer, whole or not at all.

        Args:
            experiment: The run's.
            tokenizer: The run's.
            base: The model folder that an adapter is learnt beside; None for none.
        """
        with new_folder(self.path) as temporary:
            _record_base(temporary, base)
            write_json(temporary / _CONFIG, experiment.to_dict())
            tokenizer.save(temporary / _TOKENIZER)

    def go_on(self, experiment: Experiment, base: Any = None) -> None:
        """Records config and base that the run goes on with; mends what a kill broke.

        Args:
            experiment: The run's.
            base: As in `begin`; it may lie elsewhere by now.
        """
        _record_base(self.path, base)
        write_json(self.path / _CONFIG, experiment.to_dict())
        for folder in (self.best, self.last):
            old = _aside(folder)
            if old.exists() and not folder.exists():
                os.rename(old, folder)
            shutil.rmtree(old, ignore_errors=True)
            for leftover in self.path.glob(f".*{folder.name}.new*"):
                shutil.rmtree(leftover, ignore_errors=True)

    def base(self, given: Any = None) -> pathlib.Path:
        """Returns the model folder that this run's adapter is learnt beside.

        Args:
            given: Where that folder lies now, if it was moved.

        Raises:
            FileNotFoundError: It is no longer there.
            ValueError: It holds other weights than the run began with.
        """
        described = read_json(self.path / _BASE)
        folder = pathlib.Path(given or described["folder"])
        if not folder.is_dir():
            raise FileNotFoundError(
                "A run of an adapter goes on beside the model that it began with. "
                f"Received: {folder}, which is not there. Say where it lies "
                "(`--init`)."
            )
        if weights_sha256(folder) != described["sha256"]:
            raise ValueError(
                "A run of an adapter goes on beside the weights that it began with. "
                f"Received: {folder}, which holds others. Give the same, or start a "
                "new run."
            )
        return folder

    def load_tokenizer(self, given: Any = None) -> Any:
        """Returns the run's tokenizer.

        Raises:
            ValueError: `given` is another one.
        """
        own = tokenizers.load(self.path / _TOKENIZER)
        if given is not None:
            if tokenizer_fingerprint(given) != tokenizer_fingerprint(own):
                raise ValueError(
                    "A run goes on with the tokenizer that it began with. Received: "
                    f"another than {self.path / _TOKENIZER}. Leave it out, or begin "
                    "a new run."
                )
        return own

    def replace_model(
        self, folder: pathlib.Path, model: keras.Model, tokenizer: Any
    ) -> None:
        """Saves a model folder, or an adapter's, in place of the one before.

        At any moment the old or the new one is on the disk, whole.
        """
        new, old = folder.with_name(f".{folder.name}.new"), _aside(folder)
        shutil.rmtree(new, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
        if models.has_adapter(model):
            models.save_adapter(model, new, self.base())
        else:
            models.save(model, new, tokenizer)
        if folder.exists():
            os.rename(folder, old)
        os.rename(new, folder)
        shutil.rmtree(old, ignore_errors=True)


def _record_base(folder: pathlib.Path, base: Any) -> None:
    """Writes where an adapter's base lies, and which weights it holds."""
    if base is not None:
        values = {"folder": os.path.abspath(base), "sha256": weights_sha256(base)}
        write_json(folder / _BASE, values)


def _aside(folder: pathlib.Path) -> pathlib.Path:
    return folder.with_name(f".{folder.name}.old")
