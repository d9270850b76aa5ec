r"""Starts several workers of one run on this machine: `launch --workers=2 -- VERB ...`.

Each worker is a process with a TF_CONFIG of its own, and a share of the cores. What it
prints is shown behind its number. SIGTERM and Ctrl-C go on to all workers. Once one
ends with a failure the others get --grace_seconds to notice it, then they are ended.

The exit status is 0 if every worker's is, else that of the first that failed: 75 if
the run was asked to end and saved, 128 + N of a worker that signal N killed.

Example: keras-llm launch --workers=2 -- train --run_dir=runs/whale \
    --config=keras_llm/configs/quickstart.py --train_text=testdata/moby_dick.txt
"""

import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time

from absl import app, flags

USES_TENSORFLOW = False  # The workers do.

_WORKERS = flags.DEFINE_integer("workers", 2, "Processes to start.", lower_bound=1)
_GRACE_SECONDS = flags.DEFINE_float(
    "grace_seconds",
    60.0,
    "How long the others may go on after one worker has failed.",
    lower_bound=0.0,
)

_PACKAGE_PARENT = pathlib.Path(__file__).parents[2]
_SECONDS_BETWEEN_LOOKS = 0.1
_SECONDS_TO_END = 30.0  # Between asking a worker to end and killing it.


def main(argv: list[str]) -> None:
    """Starts the workers and waits for all of them."""
    if len(argv) < 2:
        raise app.UsageError("Give the verb that each worker runs: -- train ...")
    workers: list[subprocess.Popen[str]] = []
    # Signals are passed on from before the first worker starts: none is left alone.
    with _passed_on(workers):
        hosts = free_addresses(_WORKERS.value)
        for place in range(len(hosts)):
            workers.append(_start(place, hosts, argv[1:]))
        printers = [
            threading.Thread(target=_print_lines, args=(place, source, to))
            for place, worker in enumerate(workers)
            for source, to in ((worker.stdout, sys.stdout), (worker.stderr, sys.stderr))
        ]
        for printer in printers:
            printer.start()
        status = _wait(workers, _GRACE_SECONDS.value)
    for printer in printers:
        printer.join()
    sys.exit(status)


def free_addresses(number: int) -> list[str]:
    """Returns loopback addresses that nobody listened on a moment ago."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]


def tf_config(place: int, hosts: list[str]) -> str:
    """Returns what TF_CONFIG says to the worker of that place."""
    task = {"type": "worker", "index": place}
    return json.dumps({"cluster": {"worker": hosts}, "task": task})


def _start(place: int, hosts: list[str], words: list[str]) -> subprocess.Popen[str]:
    threads = max(1, (os.cpu_count() or 1) // len(hosts))
    environment = {
        "TF_NUM_INTRAOP_THREADS": str(threads),
        **os.environ,
        "TF_CONFIG": tf_config(place, hosts),
        "PYTHONPATH": os.pathsep.join(
            [str(_PACKAGE_PARENT), *filter(None, [os.environ.get("PYTHONPATH")])]
        ),
    }
    return subprocess.Popen(
        [sys.executable, "-m", "keras_llm.commands", *words],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )


def _print_lines(place: int, source, to) -> None:
    for line in source:
        to.write(f"[{place}] {line}")
        to.flush()


@contextlib.contextmanager
def _passed_on(workers: list[subprocess.Popen[str]]):
    """Passes SIGTERM and SIGINT on to the workers while the block runs.

    A worker that is left when the block ends, as by an error, is killed.
    """

    def pass_on(number, frame):
        del frame
        for worker in workers:
            worker.send_signal(number)

    before = {n: signal.signal(n, pass_on) for n in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for worker in workers:
            worker.kill()


def _wait(workers: list[subprocess.Popen[str]], grace: float) -> int:
    """Waits until all have ended; returns the status of the first that failed, or 0."""
    failed: int | None = None
    patience = float("inf")
    asked = False
    while any(worker.poll() is None for worker in workers):
        for place, worker in enumerate(workers):
            if failed is None and worker.poll():
                failed = place
                patience = time.monotonic() + grace
        if time.monotonic() > patience:
            for worker in workers:
                worker.kill() if asked else worker.terminate()
            asked, patience = True, time.monotonic() + _SECONDS_TO_END
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    ends = [worker.returncode for worker in workers]
    end = ends[failed] if failed is not None else next(filter(None, ends), 0)
    return 128 - end if end < 0 else end
