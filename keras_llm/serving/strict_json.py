"""JSON as the standard has it, read within bounds.

Python's `json` accepts duplicate keys, lone surrogates and `1e999`, and fails on
deep nesting by recursion. Here each is an error with a place in the text. Tokens
beyond the standard are `NaN`, `Infinity` and `-Infinity`, which TF Serving takes as
values of float tensors; the tensor's type check refuses them elsewhere.
"""

import json
import re
from typing import Any

import numpy as np

from keras_llm.serving.errors import RequestError

# A tensor of rank 30 needs 32: the request, its inputs, and the lists.
MAX_DEPTH = 32
# Arrays and objects: an empty one takes 2 bytes of text and 64 of memory.
MAX_CONTAINERS = 2**18

# A string, or one that the text ends in: so that matching stays linear.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def parse(body: bytes) -> Any:
    """Returns the value of a JSON text.

    Raises:
        RequestError: The text is empty, is not UTF-8 or not JSON, nests deeper than
            `MAX_DEPTH`, has more than `MAX_CONTAINERS` arrays and objects, repeats
            a key, or holds a number or a character that has no value.

    >>> parse(b'{"instances": [1.0, NaN]}')
    {'instances': [1.0, nan]}
    >>> parse(b'{"a": 1, "a": 2}')
    Traceback (most recent call last):
    ...
    keras_llm.serving.errors.RequestError: JSON Parse error: Duplicate key "a"
    """
    body = body.removeprefix(b"\xef\xbb\xbf")
    if not body:
        raise _parse_error("The document is empty")
    _check_nesting(body)
    try:
        value = _DECODER.decode(body.decode("utf-8"))
    except json.JSONDecodeError as error:
        offset = len(error.doc[: error.pos].encode("utf-8", "surrogatepass"))
        raise _parse_error(f"{error.msg} at offset: {offset}") from None
    except UnicodeDecodeError as error:
        raise _parse_error(f"Not UTF-8 at offset: {error.start}") from None
    except ValueError:  # Python refuses integers of more than 4,300 digits.
        raise _parse_error("A number has too many digits") from None
    if _SURROGATE.search(body):
        _check_text(value)
    return value


def _parse_error(why: str) -> RequestError:
    return RequestError(f"JSON Parse error: {why}")


def _check_nesting(body: bytes) -> None:
    if body.count(b"[") + body.count(b"{") <= MAX_DEPTH:
        return
    brackets = _STRING.sub(b"", body).translate(None, _NOT_BRACKETS)
    codes = np.frombuffer(brackets, np.uint8)
    opens = (codes == ord("[")) | (codes == ord("{"))
    if not np.count_nonzero(opens) <= MAX_CONTAINERS:
        raise _parse_error(f"More than {MAX_CONTAINERS:,} arrays and objects")
    depth = np.cumsum(np.where(opens, 1, -1))
    if not depth.max(initial=0) <= MAX_DEPTH:
        raise _parse_error(f"Nested more than {MAX_DEPTH} levels deep")


def _check_text(value: Any) -> None:
    """Refuses half a surrogate pair, which no UTF-8 text can hold."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise _parse_error("A string holds half a surrogate pair") from None
    elif isinstance(value, dict):
        for key, item in value.items():
            _check_text(key)
            _check_text(item)
    elif isinstance(value, list):
        for item in value:
            _check_text(item)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        repeated = next(key for key in found if keys.count(key) > 1)
        raise _parse_error(f"Duplicate key {json.dumps(repeated[:64])}")
    return found


def _float(text: str) -> float:
    value = float(text)
    if not abs(value) < float("inf"):
        raise _parse_error(f"Number too big to be stored in double: {text[:32]}")
    return value


# Non-strict only in what `parse_constant` lets through: NaN and the infinities.
_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_float=_float, strict=True)
