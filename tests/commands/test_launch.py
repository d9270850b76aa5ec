"""Workers on this machine: what they print, how they end, whom a signal reaches."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from keras_llm.commands import launch

ROOT = pathlib.Path(__file__).parents[2]


def launched(*words):
    return subprocess.run(
        [sys.executable, "scripts/launch.py", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_every_line_says_whose_it_is_and_all_well_is_zero():
    done = launched("--workers=3", "--", "evaluate", "--help")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert {line[:4] for line in lines} == {"[0] ", "[1] ", "[2] "}
    said = [[line for line in lines if line.startswith(f"[{i}]")] for i in range(3)]
    assert len(said[0]) == len(said[1]) == len(said[2]) > 10


def test_the_status_is_that_of_the_workers():
    done = launched("--", "evaluated")
    assert done.returncode == 2
    assert done.stderr.count("no verb `evaluated`. Did you mean `evaluate`?") == 2


def test_a_verb_is_needed():
    done = launched("--workers=2")
    assert done.returncode != 0 and "-- train ..." in done.stdout + done.stderr


def worker(code, **options):
    return subprocess.Popen([sys.executable, "-c", code], text=True, **options)


def test_the_first_failure_counts_and_the_others_have_their_grace():
    slow = worker("import time; time.sleep(600)")
    quick = worker("import sys; sys.exit(69)")
    begun = time.monotonic()
    assert launch._wait([slow, quick], grace=0.5) == 69
    assert 0.5 <= time.monotonic() - begun < 30
    assert slow.returncode == -signal.SIGTERM


def test_who_ignores_being_asked_is_killed(monkeypatch):
    monkeypatch.setattr(launch, "_SECONDS_TO_END", 0.2)
    code = (
        "import signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print('deaf', flush=True); time.sleep(600)"
    )
    deaf = worker(code, stdout=subprocess.PIPE)
    assert deaf.stdout.readline() == "deaf\n"
    assert launch._wait([deaf, worker("raise SystemExit(1)")], grace=0.1) == 1
    assert deaf.returncode == -signal.SIGKILL
    deaf.stdout.close()


def test_a_worker_that_a_signal_killed_gives_its_number():
    killed = worker("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    assert launch._wait([killed], grace=0.1) == 128 + signal.SIGKILL


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_every_worker(number):
    code = (
        "import signal, sys, time\n"
        f"signal.signal({int(number)}, lambda *_: sys.exit(75))\n"
        "print('ready', flush=True); time.sleep(600)"
    )
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    for each in workers:
        assert each.stdout.readline() == "ready\n"
    with launch._passed_on(workers):
        os.kill(os.getpid(), number)
        assert launch._wait(workers, grace=30.0) == 75
    for each in workers:
        assert each.returncode == 75
        each.stdout.close()
