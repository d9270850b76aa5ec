"""Proofs of exports that start sooner, but for the tests of the proof itself."""

import importlib
import json
import pathlib

import pytest

from keras_llm.export import writer
from tests import forked

# The package's `verify` is the function.
verify_lib = importlib.import_module("keras_llm.export.verify")


@pytest.fixture(scope="module", autouse=True)
def _proofs_from_forks(request):
    """Forks for all of a file's proofs; `test_export.py` starts anew, as users do."""
    with pytest.MonkeyPatch.context() as patch:
        if not request.module.__name__.endswith("test_export"):
            fork_proofs(patch)
        yield


@pytest.fixture
def proof_from_a_fork(monkeypatch):
    """Forks for the proofs of one test."""
    fork_proofs(monkeypatch)


def fork_proofs(patch):
    """Forks the process that answers off one that has imported TensorFlow alone."""
    patch.setattr(verify_lib, "FreshProcess", _Fork)
    patch.setattr(writer, "FreshProcess", _Fork)


class _Fork:
    """Keeps the cases, and forks off a process that answers them all at once."""

    def __init__(self):
        self._lines = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def load(self, folder):
        self._lines.append(json.dumps(str(pathlib.Path(folder).absolute())))

    def ask(self, name, inputs):
        self._lines.append(json.dumps([name, inputs]))

    def answers(self):
        done = forked.run(
            verify_lib.fresh_process.__file__,
            stdin="\n".join(self._lines).encode(),
            cwd=pathlib.Path.cwd().anchor,
        )
        return verify_lib._answers(done.returncode, done.stdout, done.stderr)
