"""Proof that an export gives elsewhere what the model gives in memory."""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
from typing import Any

import tensorflow as tf

from keras_llm.core.allowed_ops import check_graph
from keras_llm.core.prediction_log import WARMUP_PATH, read_warmup
from keras_llm.export import fresh_process
from keras_llm.export.arithmetic import TOLERANCES, compute_dtype, layout
from keras_llm.export.fresh_process import plain
from keras_llm.export.signatures import Servable
from keras_llm.generation import TextModel
from keras_llm.generation import parameters as parameters_lib

_NEW_TOKENS = 12
_PROMPTS = ("", "The", "Call me Ishmael.", "一二三，café 🙂\n\t  x")


class VerificationError(RuntimeError):
    """An export holds a forbidden op, or answers otherwise than the model."""


def verify(
    folder: str | os.PathLike[str], model: Any, tokenizer: Any, jit: bool = False
) -> int:
    """Checks an export in a process that cannot import this package.

    The graph's ops must all be on the list of what TF Serving links. Every signature
    and every warm-up request must be answered as in memory: greedy and sampled text
    and token ids identical, alone and in a mixed batch; log probabilities, logits and
    state within 1e-4 in float32, 2e-3 in float16 and 1.6e-2 in bfloat16, relative to
    1 or to the value, whichever is greater.

    In float32 the model in memory is not compiled and its sums have another order.
    In half precision that alone would choose other tokens: there it computes just as
    the export does.

    Args:
        folder: The export, at a place other than where it was written.
        model: The exported model.
        tokenizer: Its tokenizer.
        jit: Whether decoding was compiled by XLA.

    Returns:
        The number of answers compared.

    Raises:
        core.allowed_ops.ForbiddenGraphError: An op is not allowed.
        VerificationError: An answer differs or is not finite, or there was none.
    """
    check_graph(folder, allow_xla=jit)
    dtype = compute_dtype(model)
    exact = dtype == "float32"
    with contextlib.nullcontext() if exact else layout(model, jit):
        # Its own functions: nothing that was traced to be written is reused.
        text_model = TextModel(model, tokenizer, jit and not exact)
        signatures = Servable(text_model, weights=[]).signatures()
        cases = []
        for case in _answered(signatures, text_model, folder):
            _check_finite(case[-1], dtype)
            cases.append(case)
    answers = _ask_fresh_process(folder, [case[:2] for case in cases])
    for (name, inputs, expected), answer in zip(cases, answers, strict=True):
        _compare(name, inputs, expected, answer, TOLERANCES[dtype])
    return len(cases)


def _cases(text_model):
    """Yields [signature, inputs]; generation in a mixed batch, then in single rows."""
    prompts = [text for text in _PROMPTS if _fits(text_model, text)]
    knobs = [
        {
            **parameters_lib.DEFAULTS,
            "max_new_tokens": _room(text_model, prompt),
            "temperature": float(i % 3 > 0) * 0.8,
            "top_k": 40 * (i % 2),
            "top_p": 0.9,
            "repetition_penalty": 1.0 + 0.1 * i,
            "seed": 10 + i,
        }
        for i, prompt in enumerate(prompts)
    ]
    stops = [["e", ""] if i % 2 else ["", ""] for i in range(len(prompts))]
    columns = {key: [row[key] for row in knobs] for key in knobs[0]}
    texts = {"prompt": prompts, "stop": stops, **columns}
    # First, for it shows best what overflows.
    yield "score", {"prompt": prompts, "completion": prompts[::-1]}
    yield "tokenize", {"text": prompts}
    yield "generate", texts
    for i in range(len(prompts)):
        yield "generate", {key: values[i : i + 1] for key, values in texts.items()}
    yield "generate_ids", {**_ids(text_model, prompts), **columns}
    yield "serving_default", {"prompt": prompts[:1]}


def _warm_up(folder):
    """Yields the warm-up requests: one that fails keeps TF Serving from serving."""
    path = pathlib.Path(folder) / WARMUP_PATH
    for request in read_warmup(path) if path.exists() else ():
        inputs = {key: plain(value) for key, value in request.inputs.items()}
        yield request.signature_name, inputs


def _prefill(text_model):
    """Returns the case whose state the next one steps from."""
    ids = _ids(text_model, [""])
    return "prefill", {**ids, "capacity": [min(4, text_model.limit)]}


def _ids(text_model, prompts):
    token_ids, lengths = text_model.encode_prompt(tf.constant(prompts))
    return {"token_ids": plain(token_ids.numpy()), "lengths": plain(lengths.numpy())}


def _fits(text_model, text):
    """Whether the text, with another after it, is within the model's positions."""
    _, lengths = text_model.encode_prompt(tf.constant([text]))
    return 2 * int(lengths[0]) + 8 <= text_model.limit or text == ""


def _room(text_model, text):
    _, lengths = text_model.encode_prompt(tf.constant([text]))
    return min(_NEW_TOKENS, text_model.limit - int(lengths[0]))


def _answered(signatures, text_model, folder):
    """Yields each case [signature, inputs] with its outputs in memory."""
    cases = [*_cases(text_model), *_warm_up(folder), _prefill(text_model)]
    for name, inputs in cases:
        outputs = _in_memory(signatures[name], inputs)
        yield name, inputs, outputs
    step = {"token_ids": inputs["lengths"], **outputs}
    del step["logits"]
    yield "decode_step", step, _in_memory(signatures["decode_step"], step)


def _in_memory(signature, inputs):
    specs = tf.nest.flatten(signature.structured_input_signature)
    feed = {spec.name: tf.constant(inputs[spec.name], spec.dtype) for spec in specs}
    return {key: plain(value.numpy()) for key, value in signature(**feed).items()}


def _ask_fresh_process(folder, cases) -> list[dict[str, Any]]:
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"}
    folder = pathlib.Path(folder).absolute()
    finished = subprocess.run(
        # Not isolated (-I): libraries may lie where PYTHONPATH or the user's site says.
        [sys.executable, "-P", fresh_process.__file__, os.fspath(folder)],
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
        f"ended with status {finished.returncode} and said: {finished.stderr[-2000:]}\n"
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
