"""Checkpoints of a run: each is whole or absent, and the newest whole one counts."""

import dataclasses
import logging
import math
import os
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import safetensors
import safetensors.numpy

from keras_llm import models
from keras_llm.core import (
    CorruptFolderError,
    DiskFullError,
    check_free_space,
    check_manifest,
    new_folder,
    read_json,
    write_json,
    write_manifest,
)
from keras_llm.training.optimizer import Optimizer

_ARRAYS = "arrays.safetensors"
_STATE = "state.json"
_PREFIX = "step_"

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class RunState:
    """What a run has to remember beside its arrays. All of it survives JSON.

    Attributes:
        step: Steps taken, refused ones included.
        data_position: Of the training batches, from their `position()`.
        validation_sha256: Fingerprint of the validation batches.
        best_loss: Lowest validation loss so far, or None.
        best_step: Where it was reached.
        evaluations_since_best: For early stopping.
        evaluation_due: Whether the run was left before the step's evaluation ended.
        bad_steps: Steps refused because of NaN or infinity, in all.
        tokens: Real tokens trained on.
        seconds: Spent so far, over all resumptions.
    """

    step: int = 0
    data_position: Any = None
    validation_sha256: str | None = None
    best_loss: float | None = None
    best_step: int | None = None
    evaluations_since_best: int = 0
    evaluation_due: bool = False
    bad_steps: int = 0
    tokens: int = 0
    seconds: float = 0.0


class Checkpoints:
    """The checkpoints of one run: `step_00000500`, `step_00001000`, and so on.

    Each is a folder with `arrays.safetensors` (weights, optimizer slots, random
    generators, by name), `state.json` (a `RunState`) and `manifest.json` (sizes and
    SHA-256). It is written beside its place, flushed to disk and only then moved
    there, so a kill at any moment leaves the ones before untouched, and one of the
    same step too; `mend` finishes what a kill cut short.

    Args:
        folder: Where they lie; made when needed.
        keep: How many to keep; older ones are removed after a new one is whole.
    """

    def __init__(self, folder: str | os.PathLike[str], keep: int):
        self.folder = pathlib.Path(folder)
        self.keep = keep

    def save(self, arrays: Mapping[str, Any], state: RunState) -> pathlib.Path:
        """Writes a checkpoint and removes those beyond `keep`.

        Args:
            arrays: Variables, or arrays, by name.
            state: What the run has to remember beside them.

        Raises:
            core.DiskFullError: Nothing is left behind of this one, and the
                others are untouched.
        """
        path = self.folder / f"{_PREFIX}{state.step:08d}"
        values = {name: _numpy(value) for name, value in arrays.items()}
        needed = sum(value.nbytes for value in values.values())
        self.mend()
        new = path.with_name(f".{path.name}.new")
        with new_folder(new, bytes_needed=needed) as temporary:
            safetensors.numpy.save_file(values, temporary / _ARRAYS)
            write_json(temporary / _STATE, dataclasses.asdict(state))
            write_manifest(temporary)
        _put(new, path)
        # Later ones were passed over as damaged: they must not count as kept.
        upto = [other for other in self.paths() if other.name <= path.name]
        for old in upto[self.keep :]:
            _remove(old)
        return path

    def warn_if_short_of_room(self, arrays: Mapping[str, Any]) -> None:
        """Logs a warning if the disk will not hold what is going to be kept.

        That is one checkpoint beyond `keep` while a new one is written, and about
        one more for the two model folders.
        """
        try:
            check_free_space(self.folder, num_bytes(arrays) * (self.keep + 2))
        except DiskFullError as error:
            _log.warning("The run may not find room for its checkpoints: %s", error)

    def paths(self) -> list[pathlib.Path]:
        """Returns the checkpoints present, whole or not, newest first."""
        return sorted(self.folder.glob(f"{_PREFIX}*"), reverse=True)

    def newest_whole(self) -> pathlib.Path | None:
        """Returns the newest checkpoint that matches its manifest, or None.

        Raises:
            CorruptFolderError: There are checkpoints, but none is whole.
        """
        failures = []
        for path in self.paths():
            try:
                check_manifest(path)
                return path
            except CorruptFolderError as error:
                failures.append(str(error))
                _log.warning("Damaged checkpoint passed over: %s", error)
        if failures:
            raise CorruptFolderError(
                f"None of the {len(failures)} checkpoints in {self.folder} is whole: "
                f"{failures[0]} Restore one from a copy, or start a new run."
            )
        return None

    def restore(self, path: pathlib.Path, arrays: Mapping[str, Any]) -> RunState:
        """Fills the variables `arrays` from a checkpoint and returns its state.

        Nothing is assigned unless every name and shape fits.

        Raises:
            CorruptFolderError: It holds other arrays than these.
        """
        try:
            with safetensors.safe_open(path / _ARRAYS, framework="numpy") as file:
                _check_fit(file, arrays, path)
                for name, variable in arrays.items():
                    variable.assign(file.get_tensor(name))
            return RunState(**read_json(path / _STATE))
        except (safetensors.SafetensorError, TypeError) as error:
            raise CorruptFolderError(f"{path} is no checkpoint: {error}.") from error

    def mend(self) -> None:
        """Finishes the save that a kill cut short, or removes what it left behind."""
        for new in list(self.folder.glob(f".{_PREFIX}*.new")):
            _put(new, self.folder / new.name[1:].removesuffix(".new"))
        for leftover in self.folder.glob(f".*{_PREFIX}*"):
            shutil.rmtree(leftover, ignore_errors=True)


def named_arrays(
    model: keras.Model, optimizer: Optimizer, further: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns every variable that decides how a run goes on, by a stable name.

    Weights (`model/…`), the states of the random generators (`random/…`), the
    optimizer's slots (`first_moment/…` and so on) and count, and `further` ones. Of a
    model with an adapter the frozen weights are left out: they stay where they are.
    """
    own = model.weights
    if models.has_adapter(model):
        own = models.adapter_weights(model)
    arrays: dict[str, Any] = {f"model/{w.path}": w for w in own}
    weights = {id(weight) for weight in model.weights}
    # Neither `weights` nor a Keras weights file holds the generators' states.
    states = [v for v in model.variables if id(v) not in weights]
    arrays.update({f"random/{i}": state for i, state in enumerate(states)})
    for kind, slots in optimizer.slots.items():
        for variable, slot in zip(optimizer.variables, slots, strict=True):
            if slot is not None:
                arrays[f"{kind}/{variable.path}"] = slot
    arrays["optimizer/updates"] = optimizer.updates
    arrays.update(further)
    return arrays


def _check_fit(file, arrays: Mapping[str, Any], path: pathlib.Path) -> None:
    names = set(file.keys())
    differing = sorted(names ^ set(arrays))
    if differing:
        raise CorruptFolderError(
            f"The checkpoint {path} is of another model or optimizer: "
            f"`{differing[0]}` is not on both sides."
        )
    for name, variable in arrays.items():
        shape = tuple(file.get_slice(name).get_shape())
        if shape != tuple(variable.shape):
            raise CorruptFolderError(
                f"`{name}` in the checkpoint {path} has shape {shape}; the run has "
                f"{tuple(variable.shape)}."
            )


def num_bytes(arrays: Mapping[str, Any]) -> int:
    """Returns the bytes of variables' values."""
    return sum(
        math.prod(variable.shape)
        * np.dtype(keras.backend.standardize_dtype(variable.dtype)).itemsize
        for variable in arrays.values()
    )


def copied(arrays: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Returns the values of variables, by name, which later steps leave alone."""
    return {name: _numpy(value) for name, value in arrays.items()}


def _numpy(variable: Any) -> np.ndarray:
    if isinstance(variable, np.ndarray):
        return variable
    if isinstance(variable, keras.Variable):
        variable = variable.value
    # `numpy` copies. Not `ascontiguousarray`, which turns a scalar into a vector.
    return np.asarray(variable.numpy(), order="C")


def _put(new: pathlib.Path, path: pathlib.Path) -> None:
    """Moves a whole checkpoint to its name; at any moment one of the two is there."""
    if path.exists():
        # After a fall-back past a damaged one, the same step comes again.
        _remove(path)
    os.rename(new, path)


def _remove(path: pathlib.Path) -> None:
    """Removes a checkpoint; under its own name it is never there in part."""
    hidden = path.with_name(f".{path.name}.removed")
    shutil.rmtree(hidden, ignore_errors=True)
    os.rename(path, hidden)
    shutil.rmtree(hidden, ignore_errors=True)
