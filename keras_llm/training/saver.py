"""Checkpoints written while the steps go on."""

import concurrent.futures
import logging
from collections.abc import Mapping
from typing import Any, Self

from keras_llm.training.checkpoints import Checkpoints, RunState, copied

_log = logging.getLogger(__name__)


class Saver:
    """Saves checkpoints in a thread; a run waits for the copy of its arrays alone.

    One is written at a time: a save waits for the one before. What goes wrong in the
    thread is raised by the next call of this object.

    Leaving its block waits for what is still written; where an error ends the block, a
    save that fails is logged, and the error goes on.

    Args:
        checkpoints: Where they go.
        in_background: Whether to go on while a checkpoint is written. It takes the
            memory of the arrays once more.
    """

    def __init__(self, checkpoints: Checkpoints, in_background: bool):
        self.checkpoints = checkpoints
        self.in_background = in_background
        self._executor = concurrent.futures.ThreadPoolExecutor(1, "checkpoints")
        self._writing: concurrent.futures.Future | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: Any, *_: object) -> None:
        try:
            self.wait()
        except Exception as failure:
            if kind is None:
                raise
            _log.error("The last checkpoint was not written: %s", failure)
        finally:
            self._executor.shutdown()

    def save(self, arrays: Mapping[str, Any], state: RunState) -> None:
        """Saves a checkpoint of the arrays as they are now.

        Raises:
            core.DiskFullError: There is no room for the one before, or, where it is
                not written in the background, for this one.
        """
        self.wait()
        if self.in_background:
            self._writing = self._executor.submit(
                self.checkpoints.save, copied(arrays), state
            )
        else:
            self.checkpoints.save(arrays, state)

    @property
    def is_writing(self) -> bool:
        """Whether a save goes on in the background."""
        return self._writing is not None and not self._writing.done()

    def check(self) -> None:
        """Raises what went wrong in a save that is over."""
        if not self.is_writing:
            self.wait()

    def wait(self) -> None:
        """Returns once everything is written; raises what went wrong."""
        if self._writing is None:
            return
        # Until it is over it is not let go of, Ctrl-C or not.
        concurrent.futures.wait([self._writing])
        writing, self._writing = self._writing, None
        writing.result()
