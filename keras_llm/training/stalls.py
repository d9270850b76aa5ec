"""Says it while a batch does not come."""

import contextlib
import logging
import threading
import time
from collections.abc import Iterator
from typing import NamedTuple

_STALL_S = 30.0  # After which a batch that does not come is named, and then again.
_LOOK_S = 1.0  # From one look to the next.

_log = logging.getLogger(__name__)


class _Wait(NamedTuple):
    step: int
    begun: float


class Stalls:
    """Warns every half minute while the batches of a step have not come.

    A thread looks once a second: what waits cannot speak for itself. `close` ends it.
    """

    def __init__(self) -> None:
        self._wait: _Wait | None = None
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    @contextlib.contextmanager
    def reading(self, step: int) -> Iterator[None]:
        """Stands around the reading of a step's batches."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._look, daemon=True)
            self._thread.start()
        self._wait = _Wait(step, time.monotonic())
        try:
            yield
        finally:
            self._wait = None

    def close(self) -> None:
        """Ends the thread."""
        self._closed.set()

    def _look(self) -> None:
        told: tuple[_Wait, int] | None = None
        while not self._closed.wait(_LOOK_S):
            wait = self._wait
            if wait is None:
                continue
            seconds = time.monotonic() - wait.begun
            times = int(seconds // _STALL_S)
            if times and told != (wait, times):
                told = wait, times
                _log.warning(
                    "Step %d has waited %.0f s for its batch: the input has stalled. "
                    "See whether its files can be read.",
                    wait.step,
                    seconds,
                )
