"""Signals that ask a run to end: it saves first."""

import signal
import threading
from types import FrameType
from typing import NoReturn

# EX_TEMPFAIL of sysexits.h: not a failure, try again (with --resume).
EXIT_CODE = 75


class Preempted(Exception):
    """The run was asked to end (SIGTERM); it saved, and can be resumed.

    A command that meets it exits with `EXIT_CODE`.
    """


class AskedToEnd(Exception):
    """A signal came; raised where the run can be left."""


class Interruption:
    """Notes SIGTERM and SIGINT while a run goes on; the run asks between batches.

    A second signal of the same kind has its usual effect at once, but that what is
    being written is waited for after a second Ctrl-C. Outside the main thread no signal
    can be caught, and none is.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():
            for kind in (signal.SIGTERM, signal.SIGINT):
                self._before[kind] = signal.signal(kind, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for kind, handler in self._before.items():
            signal.signal(kind, handler)  # type: ignore[arg-type]

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.received = signal.Signals(number)
        signal.signal(number, self._before[self.received])  # type: ignore[arg-type]

    def leave(self, message: str) -> NoReturn:
        """Raises what ends the run, once everything is saved."""
        if self.received is signal.SIGINT:
            raise KeyboardInterrupt(message)
        raise Preempted(message)
