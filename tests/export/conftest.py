"""Proofs of exports that start sooner, but for the tests of the proof itself."""

import importlib
import types

import pytest

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
    patch.setattr(verify_lib, "subprocess", types.SimpleNamespace(run=_run))


def _run(command, *, input, cwd, **_):
    script, *arguments = command[2:]  # After Python and -P.
    return forked.run(script, *arguments, stdin=input.encode(), cwd=cwd)
