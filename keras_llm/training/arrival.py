"""Waiting for the other workers of a run to start: with a word, and with an end."""

import errno
import logging
import socket
import time
from typing import Any

from keras_llm.training.agreement import LostWorkerError

_ATTEMPT_S = 0.2  # From one look for a worker to the next.
_WORD_S = 30.0  # From one line about who is missing to the next.

_log = logging.getLogger(__name__)


def await_workers(resolver: Any, limit_s: float) -> None:
    """Returns once every other worker has been reached at its address.

    TensorFlow waits for all of them in one call, for an hour, and neither a signal nor
    an exception ends it. So this worker first listens at its own address, where the
    others look for it, and looks for them; who has been found may already have left
    its address to TensorFlow's server.

    Args:
        resolver: Of the cluster, with this worker's place.
        limit_s: Seconds after which it is given up.

    Raises:
        ValueError: Another process listens at this worker's address.
        LostWorkerError: A worker did not come.
    """
    jobs = resolver.cluster_spec().as_dict()
    own = jobs[resolver.task_type][resolver.task_id]
    missing = [each for addresses in jobs.values() for each in addresses]
    missing.remove(own)
    begun = told = time.monotonic()
    with _listening(own):
        while missing := [each for each in missing if not _is_there(each)]:
            now = time.monotonic()
            if now - begun > limit_s:
                raise LostWorkerError(
                    "A run begins once all of its workers are there. Received: "
                    f"nothing from {', '.join(missing)} in {limit_s:g} s. Start all "
                    "workers, each in its own place, or see why one did not start."
                )
            if now - told > _WORD_S:
                told = now
                _log.warning("Waiting for %s.", ", ".join(missing))
            time.sleep(_ATTEMPT_S)


def _listening(address):
    """Returns the open socket of an address of this machine."""
    port = int(address.rpartition(":")[2])
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    try:
        return socket.create_server(("", port), family=family, dualstack_ipv6=both)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        raise ValueError(
            "Each worker listens at an address of its own. Received: "
            f"{address}, where a process listens already. Give each its own place "
            "(--task_index, or TF_CONFIG's), or take another port."
        ) from error


def _is_there(address):
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _ATTEMPT_S * 10).close()
    except OSError:  # Not yet: its process, or its name, may still be to come.
        return False
    return True
