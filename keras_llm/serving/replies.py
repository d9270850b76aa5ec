"""From arrays to a reply's JSON, written as TF Serving writes it."""

import base64
import json
import math
from collections.abc import Mapping, Sequence

import numpy as np

from keras_llm.serving.errors import RequestError

_SPECIAL = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}


def predict_reply(outputs: Mapping[str, np.ndarray], row_format: bool) -> bytes:
    r"""Returns the body of a successful predict request.

    In row format, `{"predictions": [...]}` has one value per row: bare for one
    output, else an object with every output. In column format, `{"outputs": ...}`
    has one value for the whole batch.

    Raises:
        RequestError: An output's type has no JSON form, or row format was asked for
            and the outputs are not batches of one size.

    >>> predict_reply({"y": np.float32([0.1, 2, 1 / 3])}, row_format=True).decode()
    '{\n    "predictions": [0.1, 2.0, 0.333333343]\n}'
    """
    if not outputs:
        raise RequestError("The signature has no outputs to write as JSON.")
    texts = {}
    for name in sorted(outputs):
        texts[name] = _leaf_texts(outputs[name], as_bytes=name.endswith("_bytes"))
    if row_format:
        return _wrap("predictions", _rows(outputs, texts))
    values = {
        name: _nested(leaves, 1, outputs[name].shape)[0]
        for name, leaves in texts.items()
    }
    return _wrap("outputs", _value(values, "    "))


def _rows(outputs: Mapping[str, np.ndarray], texts: Mapping[str, list[str]]) -> str:
    sizes = {name: array.shape[:1] for name, array in outputs.items()}
    if () in sizes.values() or len(set(sizes.values())) > 1:
        listed = ", ".join(f"{name} {list(outputs[name].shape)}" for name in texts)
        raise RequestError(
            "The 'instances' format needs outputs that are batches of one size. "
            f"Received: {listed}. Send 'inputs' instead."
        )
    (rows,) = next(iter(sizes.values()))
    columns = {
        name: _nested(leaves, rows, outputs[name].shape[1:])
        for name, leaves in texts.items()
    }
    if len(columns) == 1:
        return f"[{', '.join(next(iter(columns.values())))}]"
    indent = " " * 8
    written = (
        indent + _value({name: column[i] for name, column in columns.items()}, indent)
        for i in range(rows)
    )
    body = ",\n".join(written)
    return f"[\n{body}\n    ]" if rows else "[]"


def _value(values: Mapping[str, str], indent: str) -> str:
    """Returns one value bare and several as an object, a line each."""
    if len(values) == 1:
        return next(iter(values.values()))
    lines = (f"{indent}    {json.dumps(name)}: {text}" for name, text in values.items())
    return "{\n" + ",\n".join(lines) + f"\n{indent}}}"


def _wrap(key: str, text: str) -> bytes:
    return f'{{\n    "{key}": {text}\n}}'.encode()


def _nested(leaves: list[str], count: int, shape: Sequence[int]) -> list[str]:
    """Returns the texts of `count` nested lists of the given sizes."""
    texts = leaves
    for axis in reversed(range(len(shape))):
        size, groups = shape[axis], count * math.prod(shape[:axis])
        texts = [
            f"[{', '.join(texts[i * size : (i + 1) * size])}]" for i in range(groups)
        ]
    return texts


def _leaf_texts(array: np.ndarray, as_bytes: bool) -> list[str]:
    kind = array.dtype.kind
    if kind == "O" or kind == "S":
        write = _base64_text if as_bytes else _string_text
        return [write(value) for value in array.ravel().tolist()]
    if kind == "f" and array.dtype.itemsize >= 4:
        return float_texts(array)
    if kind in "iu":
        return [str(value) for value in array.ravel().tolist()]
    if kind == "b":
        return ["true" if value else "false" for value in array.ravel().tolist()]
    raise RequestError(f"A tensor of type {array.dtype} cannot be written as JSON.")


def _string_text(value: bytes) -> str:
    # A string need not be text; JSON must be, so what is not becomes U+FFFD.
    return json.dumps(value.decode("utf-8", "replace"), ensure_ascii=False)


def _base64_text(value: bytes) -> str:
    return f'{{"b64": "{base64.b64encode(value).decode()}"}}'


def float_texts(array: np.ndarray) -> list[str]:
    """Returns six significant digits where they give the value back, else all.

    All is 9 for float32 and 17 for float64. Whole numbers keep their `.0`.

    >>> float_texts(np.float32([1.5, 1 / 3, 1e20, -np.inf]))
    ['1.5', '0.333333343', '1e+20', '-Infinity']
    """
    flat = array.ravel()
    texts = [f"{value:.6g}" for value in flat.tolist()]
    with np.errstate(over="ignore"):
        read_back = np.array([float(text) for text in texts], flat.dtype)
    digits = 9 if flat.dtype.itemsize == 4 else 17
    for i in np.flatnonzero((read_back != flat) & ~np.isnan(flat)):
        texts[i] = f"{flat[i].item():.{digits}g}"
    return [_decimal(text) for text in texts]


def _decimal(text: str) -> str:
    if "." in text or "e" in text:
        return text
    return _SPECIAL.get(text) or f"{text}.0"
