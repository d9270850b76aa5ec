"""Proof that an export gives elsewhere what the model gives in memory."""

import json
import math
import os
import pathlib
import subprocess
import sys
from typing import Any

import tensorflow as tf

from keras_llm.core.allowed_ops import check_graph
from keras_llm.export import fresh_process
from keras_llm.generation import TextModel
from keras_llm.generation import parameters as parameters_lib

LOG_PROB_TOLERANCE = 1e-4  # Relative to 1 or to the value, whichever is greater.
_NEW_TOKENS = 12
_PROMPTS = ("", "The", "Call me Ishmael.", "一二三，café 🙂\n\t  x")


class VerificationError(RuntimeError):
    """An export holds a forbidden op, or answers otherwise than the model."""


def verify(folder: str | os.PathLike[str], text_model: TextModel, jit: bool) -> int:
    """Checks an export in a process that cannot import this package.

    The graph's ops must all be on the list of what TF Serving links; greedy and
    sampled text and token ids must be identical to those in memory, log
    probabilities within 1e-4, alone and in a mixed batch.

    Args:
        folder: The export, at a place other than where it was written.
        text_model: The model in memory, not the one whose functions were written.
        jit: Whether XLA ops are allowed.

    Returns:
        The number of answers compared.

    Raises:
        core.allowed_ops.ForbiddenGraphError: An op is not allowed.
        VerificationError: An answer differs, or there was none.
    """
    check_graph(folder, allow_xla=jit)
    cases = list(_cases(text_model))
    answers = _ask_fresh_process(folder, cases)
    functions = {
        name: tf.function(getattr(text_model, name), autograph=False)
        for name in ("generate", "score", "tokenize")
    }
    for (name, inputs), answer in zip(cases, answers, strict=True):
        _compare(name, inputs, _in_memory(functions[name], name, inputs), answer)
    return len(cases)


def _cases(text_model):
    """Yields [signature, inputs]: a mixed batch, then each of its rows alone."""
    prompts = [text for text in _PROMPTS if _fits(text_model, text)]
    rows = [
        {
            **parameters_lib.DEFAULTS,
            "prompt": prompt,
            "stop": ["e", ""] if i % 2 else ["", ""],
            "max_new_tokens": _room(text_model, prompt),
            "temperature": float(i % 3 > 0) * 0.8,
            "top_k": 40 * (i % 2),
            "top_p": 0.9,
            "repetition_penalty": 1.0 + 0.1 * i,
            "seed": 10 + i,
        }
        for i, prompt in enumerate(prompts)
    ]
    yield "generate", {key: [row[key] for row in rows] for key in rows[0]}
    for row in rows:
        yield "generate", {key: [value] for key, value in row.items()}
    yield "score", {"prompt": prompts, "completion": prompts[::-1]}
    yield "tokenize", {"text": prompts}


def _fits(text_model, text):
    """Whether the text, with another after it, is within the model's positions."""
    _, lengths = text_model.encode_prompt(tf.constant([text]))
    return 2 * int(lengths[0]) + 8 <= text_model.limit or text == ""


def _room(text_model, text):
    _, lengths = text_model.encode_prompt(tf.constant([text]))
    return min(_NEW_TOKENS, text_model.limit - int(lengths[0]))


def _in_memory(function, name, inputs):
    if name == "generate":
        knobs = parameters_lib.Parameters(
            **{n: tf.constant(inputs[n], d) for n, d in parameters_lib.DTYPES.items()}
        )
        outputs = function(
            tf.constant(inputs["prompt"]), knobs, tf.constant(inputs["stop"])
        )
    else:
        outputs = function(**{key: tf.constant(value) for key, value in inputs.items()})
    return {
        key: [item.decode() for item in value.numpy()]
        if value.dtype == tf.string
        else value.numpy().tolist()
        for key, value in outputs.items()
    }


def _ask_fresh_process(folder, cases) -> list[dict[str, Any]]:
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"}
    folder = pathlib.Path(folder).absolute()
    finished = subprocess.run(
        [sys.executable, "-I", fresh_process.__file__, os.fspath(folder)],
        input=json.dumps(cases),
        capture_output=True,
        text=True,
        env=environment,
        cwd=folder.anchor,
    )
    for line in finished.stdout.splitlines():
        if line.startswith("ANSWERS "):
            return json.loads(line.removeprefix("ANSWERS "))
    raise VerificationError(
        "A process that cannot import keras_llm must load and run the export. It "
        f"ended with status {finished.returncode} and said: {finished.stderr[-2000:]}"
    )


def _compare(name, inputs, expected, received):
    for key, value in expected.items():
        if not _close(value, received[key]):
            raise VerificationError(
                f"The export must answer as the model in memory does. `{name}` "
                f"differs in `{key}`: expected {value}, received {received[key]}, "
                f"for {inputs}."
            )


def _close(expected, received):
    if isinstance(expected, list):
        return len(expected) == len(received) and all(map(_close, expected, received))
    if isinstance(expected, float):
        bound = LOG_PROB_TOLERANCE * max(1.0, abs(expected))
        return math.isfinite(received) and abs(expected - received) <= bound
    return expected == received
