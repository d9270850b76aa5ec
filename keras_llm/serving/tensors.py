"""From a request's JSON to arrays: types, shapes and limits, in TF Serving's rules.

Row format, `{"instances": [...]}`, has one value per row: bare for a signature of
one input, else an object with every input. Column format, `{"inputs": ...}`, has
one value for the whole batch. A string may be `{"b64": "..."}`.
"""

import base64
import binascii
import dataclasses
import itertools
import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from keras_llm.serving.errors import Code, RequestError

DEFAULT_SIGNATURE = "serving_default"
_KEYS = frozenset(("inputs", "instances", "signature_name"))
_LONGEST_QUOTE = 64
_MOST_NAMED = 8  # Of a request's keys, in an error.

_JSON_TYPES = {
    type(None): "Null",
    bool: "Bool",
    dict: "Object",
    list: "Array",
    str: "String",
    int: "Number",
    float: "Number",
}


@dataclasses.dataclass(frozen=True)
class TensorSpec:
    """An input or output of a signature, in TensorFlow's names.

    `dtype` is TensorFlow's name, such as "float" or "string"; `shape` has None where
    any size will do, and is None itself where any rank will do.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...] | None


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a request may ask for, checked before a tensor is made."""

    batch_rows: int = 64
    string_bytes: int = 1 * 2**20


@dataclasses.dataclass(frozen=True)
class PredictRequest:
    """A predict request whose form has been checked, but not yet its tensors."""

    signature_name: str
    values: Any
    row_format: bool

    @classmethod
    def from_json(cls, document: Any) -> "PredictRequest":
        """Reads the request's three keys; any other is refused."""
        if not isinstance(document, dict):
            raise RequestError(f"JSON Value: {_quoted(document)} is not an object.")
        unknown = sorted(document.keys() - _KEYS)
        if unknown:
            raise RequestError(
                f"Unknown key {_quoted(unknown[0])}: a request has 'instances' or "
                "'inputs', and optionally 'signature_name'."
            )
        name = document.get("signature_name", "")
        if not isinstance(name, str):
            raise RequestError(
                f"JSON Value: {_quoted(name)}: 'signature_name' must be a string."
            )
        if "instances" not in document and "inputs" not in document:
            raise RequestError("Missing 'inputs' or 'instances' key")
        if "instances" in document and "inputs" in document:
            raise RequestError("A request has either 'inputs' or 'instances', not both")
        row_format = "instances" in document
        values = document["instances" if row_format else "inputs"]
        if row_format and not (isinstance(values, list) and values):
            raise RequestError(
                f"JSON Value: {_quoted(values)}: 'instances' must be a list with at "
                "least one value."
            )
        return cls(name or DEFAULT_SIGNATURE, values, row_format)

    def arrays(
        self, specs: Mapping[str, TensorSpec], limits: Limits
    ) -> dict[str, np.ndarray]:
        """Returns every input of the signature as an array.

        Raises:
            RequestError: An input is missing or unknown, a value has another type
                or shape than its input, or the request is beyond the limits.
        """
        columns = self._rows(specs) if self.row_format else self._columns(specs)
        for name, column in columns.items():
            if isinstance(column, list) and not len(column) <= limits.batch_rows:
                raise RequestError(
                    f"A batch may hold {limits.batch_rows:,} rows at most. Received: "
                    f"{len(column):,} in {_quoted(name)}. Send several requests."
                )
        arrays = {}
        for name, column in columns.items():
            try:
                arrays[name] = to_array(column, specs[name], limits)
            except RequestError as error:
                if not self.row_format:
                    raise
                raise _located(error, column, specs[name], limits) from None
        return arrays

    def _rows(self, specs: Mapping[str, TensorSpec]) -> dict[str, list[Any]]:
        rows = self.values
        named = _is_object(rows[0])
        if not named and len(specs) > 1:
            raise RequestError(
                "'instances' must be a list of objects, since the signature has "
                f"several inputs: {', '.join(sorted(specs))}."
            )
        for i, row in enumerate(rows):
            if _is_object(row) != named:
                raise RequestError(
                    f"'instances' must hold either objects or bare values. Received: "
                    f"{_quoted(row)} at item {i} of the list."
                )
            if named and row.keys() != specs.keys():
                # TF Serving's sentence leaves it to the reader to compare.
                raise RequestError(
                    f"Failed to process element: {i} of 'instances' list. JSON "
                    f"object: {_quoted(row)} keys must be equal to: "
                    f"{','.join(sorted(specs))}.{_difference(row, specs)}"
                )
        if named:
            return {name: [row[name] for row in rows] for name in specs}
        return {next(iter(specs)): rows}

    def _columns(self, specs: Mapping[str, TensorSpec]) -> dict[str, Any]:
        values = self.values
        if not _is_object(values):
            if len(specs) > 1:
                raise RequestError(
                    "'inputs' must be an object, since the signature has several "
                    f"inputs: {', '.join(sorted(specs))}."
                )
            return {next(iter(specs)): values}
        for name in specs:
            if name not in values:
                raise RequestError(
                    f"Missing named input: {name} in 'inputs' object."
                    f"{_difference(values, specs)}"
                )
        for name in values:
            if name not in specs:
                raise RequestError(
                    f"Unknown named input: {_quoted(name)} in 'inputs' object. The "
                    f"signature has: {', '.join(sorted(specs))}."
                )
        return values


def _difference(given: Mapping[str, Any], specs: Mapping[str, TensorSpec]) -> str:
    """Returns which inputs are missing and which are unknown, as sentences.

    >>> _difference({"x": 1, "z": 2}, dict.fromkeys(["x", "y", "w"]))
    ' Missing: w, y. Unknown: "z".'
    """
    missing = sorted(specs.keys() - given.keys())
    unknown = sorted(given.keys() - specs.keys())
    text = f" Missing: {', '.join(missing)}." if missing else ""
    if unknown:
        shown = ", ".join(map(_quoted, unknown[:_MOST_NAMED]))
        more = ", ..." if len(unknown) > _MOST_NAMED else ""
        text += f" Unknown: {shown}{more}."
    return text


def to_array(value: Any, spec: TensorSpec, limits: Limits) -> np.ndarray:
    """Returns nested lists as an array of the input's type and shape.

    >>> to_array([[1, 2.5]], TensorSpec("x", "float", (None, 2)), Limits())
    array([[1. , 2.5]], dtype=float32)
    """
    shape: list[int] = []
    first = value
    while isinstance(first, list):
        shape.append(len(first))
        first = first[0] if first else None
    _check_shape(tuple(shape), spec)
    convert = _CONVERTERS.get(spec.dtype)
    if convert is None:
        raise RequestError(
            f"Input {spec.name} of type {spec.dtype} cannot be sent as JSON.",
            Code.UNIMPLEMENTED,
        )
    return convert(_leaves(value, shape), spec, limits).reshape(shape)


def _check_shape(shape: tuple[int, ...], spec: TensorSpec) -> None:
    if spec.shape is None:
        return
    fits = len(shape) == len(spec.shape) and all(
        want is None or size == want
        for size, want in zip(shape, spec.shape, strict=True)
    )
    if not fits:
        wanted = ["?" if size is None else size for size in spec.shape]
        raise RequestError(
            f"Input {spec.name} must have shape [{','.join(map(str, wanted))}]. "
            f"Received: [{','.join(map(str, shape))}]."
        )


def _leaves(value: Any, shape: list[int]) -> list[Any]:
    """Returns the values below lists of the given sizes, in order."""
    level = [value]
    for depth, size in enumerate(shape):
        for item in level:
            if not isinstance(item, list):
                raise RequestError(
                    f"JSON Value: {_quoted(item)} found at incorrect level: "
                    f"{depth + 1}. Expected at level: {len(shape)}"
                )
            if len(item) != size:
                raise RequestError(
                    f"Encountered list at unexpected size: {len(item)} at level: "
                    f"{depth} expected size: {size}"
                )
        level = list(itertools.chain.from_iterable(level))
    if any(isinstance(item, list) for item in level):
        raise RequestError(
            f"Encountered list at unexpected level: {len(shape)} expected < "
            f"{len(shape)}"
        )
    return level


def _numbers(leaves: list[Any], spec: TensorSpec, limits: Limits) -> np.ndarray:
    _check_types(leaves, (int, float), spec)
    dtype = np.float32 if spec.dtype == "float" else np.float64
    exact = 2 ** (np.finfo(dtype).nmant + 1) - 1
    largest = float(np.finfo(dtype).max)
    for leaf in leaves:
        # Integers are exact or refused; one beyond 64 bits counts as a decimal.
        if isinstance(leaf, int) and exact < abs(leaf) < 2**64:
            raise _lossy(leaf, spec)
        if abs(leaf) > largest and leaf not in (np.inf, -np.inf):
            raise _lossy(leaf, spec)
    return np.fromiter(leaves, dtype, len(leaves))


def _lossy(leaf: Any, spec: TensorSpec) -> RequestError:
    return RequestError(
        f"Cannot convert JSON value: {_quoted(leaf)} to {spec.dtype} without loss of "
        "precision."
    )


def _integers(leaves: list[Any], spec: TensorSpec, limits: Limits) -> np.ndarray:
    _check_types(leaves, (int,), spec)
    dtype = np.dtype(spec.dtype)
    bounds = np.iinfo(dtype)
    for leaf in leaves:
        if not bounds.min <= leaf <= bounds.max:
            raise _type_error(leaf, spec)
    return np.fromiter(leaves, dtype, len(leaves))


def _booleans(leaves: list[Any], spec: TensorSpec, limits: Limits) -> np.ndarray:
    _check_types(leaves, (bool,), spec)
    return np.fromiter(leaves, np.bool_, len(leaves))


def _strings(leaves: list[Any], spec: TensorSpec, limits: Limits) -> np.ndarray:
    array = np.empty(len(leaves), object)
    for i, leaf in enumerate(leaves):
        if isinstance(leaf, str):
            array[i] = leaf.encode()
        elif _is_base64(leaf):
            array[i] = _from_base64(leaf["b64"])
        else:
            raise _type_error(leaf, spec)
        if not len(array[i]) <= limits.string_bytes:
            raise RequestError(
                f"A string may hold {limits.string_bytes:,} bytes at most. Received: "
                f"{len(array[i]):,} bytes in {spec.name}."
            )
    return array


_Converter = Callable[[list[Any], TensorSpec, Limits], np.ndarray]
_CONVERTERS: dict[str, _Converter] = {
    "string": _strings,
    "bool": _booleans,
    "float": _numbers,
    "double": _numbers,
    **dict.fromkeys(
        ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
        _integers,
    ),
}


def _check_types(leaves: list[Any], wanted: tuple[type, ...], spec: TensorSpec) -> None:
    if not set(map(type, leaves)) <= set(wanted):
        odd = next(leaf for leaf in leaves if type(leaf) not in wanted)
        raise _type_error(odd, spec)


def _type_error(leaf: Any, spec: TensorSpec) -> RequestError:
    return RequestError(
        f"JSON Value: {_quoted(leaf)} Type: {_JSON_TYPES[type(leaf)]} is not of "
        f"expected type: {spec.dtype}"
    )


def _located(
    error: RequestError, column: list[Any], spec: TensorSpec, limits: Limits
) -> RequestError:
    """Returns the error with the first row that it is true of."""
    row_shape = None if spec.shape is None else spec.shape[1:]
    row_spec = dataclasses.replace(spec, shape=row_shape)
    shape: tuple[int, ...] | None = None
    for i, item in enumerate(column):
        why = ""
        try:
            item_shape = to_array(item, row_spec, limits).shape
            shape = shape or item_shape
            if item_shape != shape:
                why = f"Expecting shape {list(shape)} but got: {list(item_shape)}"
        except RequestError as row_error:
            why, error = row_error.message, row_error
        if why:
            return RequestError(
                f"Failed to process element: {i} key: {spec.name} of 'instances' "
                f"list. Error: {error.code.name}: {why}",
                error.code,
            )
    return error


def _is_base64(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() == {"b64"}
        and isinstance(value["b64"], str)
    )


def _is_object(value: Any) -> bool:
    return isinstance(value, dict) and not _is_base64(value)


def _from_base64(text: str) -> bytes:
    compact = "".join(text.split()).rstrip("=")
    try:
        return base64.b64decode(compact + "=" * (-len(compact) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise RequestError("Unable to base64 decode") from None


def _quoted(value: Any) -> str:
    """Returns the beginning of a value's JSON; a long one is not written out."""
    text = ""
    try:
        for part in json.JSONEncoder(ensure_ascii=False).iterencode(value):
            text += part[: _LONGEST_QUOTE + 1]
            if len(text) > _LONGEST_QUOTE:
                return text[:_LONGEST_QUOTE] + "..."
    except ValueError:  # An integer of very many digits.
        return "a number of very many digits"
    return text
