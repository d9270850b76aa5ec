"""Proof that an export gives elsewhere what the model gives in memory."""

import contextlib
import itertools
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from typing import Any, Self

import tensorflow as tf

from keras_llm.core.allowed_ops import check_graph
from keras_llm.core.prediction_log import WARMUP_PATH, read_warmup
from keras_llm.export import fresh_process
from keras_llm.export.arithmetic import TOLERANCES, compute_dtype, layout
from keras_llm.export.fresh_process import plain
from keras_llm.export.servable import trace
from keras_llm.export.servables import servable


class VerificationError(RuntimeError):
    """An export holds a forbidden op, or answers otherwise than the model."""


def verify(
    folder: str | os.PathLike[str],
    model: Any,
    tokenizer: Any,
    jit: bool = False,
    stranger: "FreshProcess | None" = None,
) -> int:
    """Checks an export in a process that cannot import this package.

    The graph's ops must all be on the list of what TF Serving links. Every signature
    and every warm-up request must be answered as in memory: greedy and sampled text
    and token ids identical, alone and in a mixed batch; log probabilities, logits and
    state within 1e-4 in float32, 2e-3 in float16 and 1.6e-2 in bfloat16, relative to
    1 or to the value, whichever is greater.

    In float32 the model in memory is not compiled and, but for the decoding loop,
    runs eagerly: its sums have another order. In half precision that alone would
    choose other tokens: there it computes just as the export does.

    Args:
        folder: The export, at a place other than where it was written.
        model: The exported model.
        tokenizer: Its tokenizer.
        jit: Whether decoding was compiled by XLA.
        stranger: Started before, to be ready by now; None starts one.

    Returns:
        The number of answers compared.

    Raises:
        core.allowed_ops.ForbiddenGraphError: An op is not allowed.
        VerificationError: An answer differs or is not finite, or there was none.
    """
    check_graph(folder, allow_xla=jit)
    dtype = compute_dtype(model)
    exact = dtype == "float32"
    with stranger or FreshProcess() as stranger:
        stranger.load(folder)
        with contextlib.nullcontext() if exact else layout(model, jit):
            # Its own functions: nothing that was traced to be written is reused.
            subject = servable(model, tokenizer, jit and not exact, weights=[])
            cases = []
            for case in _answered(subject, folder, exact):
                _check_finite(case[-1], dtype)
                cases.append(case)
                stranger.ask(*case[:2])  # It answers while the next is found.
        answers = stranger.answers()
    for (name, inputs, expected), answer in zip(cases, answers, strict=True):
        _compare(name, inputs, expected, answer, TOLERANCES[dtype])
    return len(cases)


def _warm_up(folder):
    """Yields the warm-up requests: one that fails keeps TF Serving from serving."""
    path = pathlib.Path(folder) / WARMUP_PATH
    for request in read_warmup(path) if path.exists() else ():
        inputs = {key: plain(value) for key, value in request.inputs.items()}
        yield request.signature_name, inputs


def _answered(subject, folder, eager):
    """Yields each case [signature, inputs] with its outputs in memory."""
    functions, traced = subject.functions(), {}

    def answer(name, inputs):
        method, specs = functions[name]
        if eager:
            return _in_memory(method, specs, inputs)
        if method not in traced:  # When first asked: the first case may be refused.
            traced[method] = trace(method, **specs)
        return _in_memory(traced[method], specs, inputs)

    for name, inputs in itertools.chain(subject.cases(answer), _warm_up(folder)):
        yield name, inputs, answer(name, inputs)


def _in_memory(method, specs, inputs):
    feed = {name: tf.constant(inputs[name], spec.dtype) for name, spec in specs.items()}
    return {key: plain(value.numpy()) for key, value in method(**feed).items()}


class FreshProcess:
    """A process that loads an export and answers cases while others are found.

    Leaving its block ends it, whatever it is at.
    """

    def __init__(self) -> None:
        # In files: a full pipe would stop it, and then the cases that it waits for.
        self._said, self._logged = tempfile.TemporaryFile(), tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            # Not isolated (-I): libraries may lie where PYTHONPATH or the user's site
            # says.
            [sys.executable, "-P", fresh_process.__file__],
            stdin=subprocess.PIPE,
            stdout=self._said,
            stderr=self._logged,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"},
            cwd=pathlib.Path.cwd().anchor,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._said.close()
        self._logged.close()

    def load(self, folder: str | os.PathLike[str]) -> None:
        """Names the export, before the first case."""
        self._write(os.path.abspath(folder))

    def ask(self, name: str, inputs: dict[str, Any]) -> None:
        """Hands over a case; if the process has ended, `answers` tells how."""
        self._write([name, inputs])

    def _write(self, value: Any) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(value).encode() + b"\n")
            self._process.stdin.flush()

    def answers(self) -> list[dict[str, Any]]:
        """Returns what all cases came to, in their order.

        Raises:
            VerificationError: The process failed.
        """
        with contextlib.suppress(BrokenPipeError):
            self._process.communicate()
        texts = []
        for file in (self._said, self._logged):
            file.seek(0)
            texts.append(file.read().decode("utf-8", "replace"))
        return _answers(self._process.returncode, *texts)


def _answers(status: int, said: str, logged: str) -> list[dict[str, Any]]:
    """Returns the answers that a process wrote to its standard output.

    Raises:
        VerificationError: There are none.
    """
    for line in said.splitlines():
        if line.startswith("ANSWERS "):
            return json.loads(line.removeprefix("ANSWERS "))
    raise VerificationError(
        "A process that cannot import keras_llm must load and run the export. It "
        f"ended with status {status} and said: {logged[-2000:]}\n"
        "If memory ran out, turn on TensorFlow's memory growth here, or free some."
    )


def _check_finite(answer, dtype):
    """Raises VerificationError where the model in memory gives NaN already."""
    for key, value in answer.items():
        if not _close(value, value, 0.0):  # NaN and infinity differ from themselves.
            raise VerificationError(
                "A model to export must give finite log probabilities. Received: "
                f"{key}={value} in {dtype}. If float16 overflows, export in bfloat16 "
                "or float32; else look at the weights."
            )


def _compare(name, inputs, expected, received, tolerance):
    for key, value in expected.items():
        if not _close(value, received[key], tolerance):
            raise VerificationError(
                f"The export must answer as the model in memory does. `{name}` "
                f"differs in `{key}`: expected {value}, received {received[key]}, "
                f"for {inputs}. Export in float32; where that fails too, report it "
                "with the model's config."
            )


def _close(expected, received, tolerance):
    if isinstance(expected, list):
        return len(expected) == len(received) and all(
            _close(one, other, tolerance)
            for one, other in zip(expected, received, strict=True)
        )
    if isinstance(expected, float):
        return abs(expected - received) <= tolerance * max(1.0, abs(expected))
    return expected == received
