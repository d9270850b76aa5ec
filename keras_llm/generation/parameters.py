"""The decoding knobs: one value per row, checked inside the graph."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

MAX_TEMPERATURE = 100.0
MIN_REPETITION_PENALTY, MAX_REPETITION_PENALTY = 0.01, 100.0


class Parameters(NamedTuple):
    """How each row is decoded; every field is a tensor [B].

    Attributes:
        max_new_tokens: Int32, at least 0: tokens to generate at most; None for 64
            or the room that is left.
        temperature: Float32 from 0 to 100; 0 takes the likeliest token.
        top_k: Int32, at least 0: draw among the k likeliest; 0 is off.
        top_p: Float32 above 0, up to 1: draw among the likeliest tokens that
            together have this probability; 1 is off.
        min_p: Float32 from 0 to 1: least probability of a token, as a share of the
            likeliest one's; 0 is off.
        repetition_penalty: Float32 from 0.01 to 100; 1 is off.
        seed: Int32. The same seed draws the same text, whatever the batch.
    """

    max_new_tokens: tf.Tensor
    temperature: tf.Tensor
    top_k: tf.Tensor
    top_p: tf.Tensor
    min_p: tf.Tensor
    repetition_penalty: tf.Tensor
    seed: tf.Tensor


DEFAULT_NEW_TOKENS = 64
DEFAULTS: dict[str, int | float] = {
    "max_new_tokens": DEFAULT_NEW_TOKENS,
    "temperature": 0.0,
    "top_k": 0,
    "top_p": 1.0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "seed": 0,
}
DTYPES = {
    name: tf.float32 if isinstance(value, float) else tf.int32
    for name, value in DEFAULTS.items()
}


def make(batch, **values) -> Parameters:
    """Returns parameters of `batch` rows from scalars or tensors [B].

    `max_new_tokens` stays None where it is not given: `with_room` fills it in.

    Args:
        batch: Int or scalar tensor, the number of rows.
        **values: Fields of `Parameters`; the others take the defaults.

    Raises:
        ValueError: An unknown field.

    >>> make(2, seed=[3, 4]).seed.numpy().tolist()
    [3, 4]
    """
    for name in values:
        if name not in DEFAULTS:
            raise ValueError(
                f"No decoding parameter is called `{name}`. There are: "
                f"{', '.join(DEFAULTS)}."
            )
    rows = {
        name: _row(name, values.get(name, default), batch)
        for name, default in DEFAULTS.items()
    }
    if values.get("max_new_tokens") is None:
        rows["max_new_tokens"] = None
    return Parameters(**rows)


def with_room(parameters: Parameters, room) -> Parameters:
    """Returns the parameters with `max_new_tokens` filled in where it is None.

    It becomes 64, or less where `room` [B], the tokens that a row can still hold, is
    less.
    """
    if parameters.max_new_tokens is not None:
        return parameters
    room = tf.maximum(room, 0)
    return parameters._replace(max_new_tokens=tf.minimum(DEFAULT_NEW_TOKENS, room))


def _row(name, value, batch):
    value = DEFAULTS[name] if value is None else value
    if not tf.is_tensor(value):
        value = _exact(name, value)
    tensor = tf.convert_to_tensor(value, DTYPES[name])
    return tf.broadcast_to(tensor, [batch]) if tensor.shape.rank == 0 else tensor


def _exact(name, value):
    """Returns an array of the parameter's dtype; refuses what would be rounded."""
    dtype = DTYPES[name].as_numpy_dtype
    received = np.asarray(value)
    kinds = "iuf" if DTYPES[name].is_floating else "iu"
    with np.errstate(invalid="ignore", over="ignore"):
        converted = received.astype(dtype) if received.dtype.kind in kinds else None
    is_exact = converted is not None and (
        DTYPES[name].is_floating or np.array_equal(converted, received)
    )
    if not is_exact:
        raise ValueError(
            f"`{name}` must be {DTYPES[name].name}, one value or one per prompt. "
            f"Received: {name}={value!r}."
        )
    return converted


def check(
    parameters: Parameters, prompt_tokens, limit: int, prompt_in_cache: bool = True
) -> Parameters:
    """Returns the parameters, unreadable until every one has passed its check.

    Whatever is computed from the result runs after the checks, so that nothing is
    allocated for a request that is refused.

    Args:
        parameters: One value per row.
        prompt_tokens: Int32 [B], the rows' prompt lengths.
        limit: Tokens that a row may hold, prompt and continuation together.
        prompt_in_cache: False for an encoder-decoder, whose source and target may
            hold `limit` tokens each.

    Raises:
        tf.errors.InvalidArgumentError: When run, on the first value out of range.
    """
    p = parameters
    room = limit - prompt_tokens
    left = tf.maximum(room, 0) if prompt_in_cache else limit
    checks = [
        require_rows(name, value, prompt_tokens) for name, value in p._asdict().items()
    ]
    with tf.control_dependencies(checks):
        checks = [
            _require(
                room >= 0,
                f"The prompt must hold at most {limit} tokens, the positions that "
                "this model has; shorten it. Received, in tokens:",
                prompt_tokens,
            ),
            _require(
                (p.max_new_tokens >= 0) & (p.max_new_tokens <= left),
                _room_rule("max_new_tokens", 0, limit, prompt_in_cache),
                p.max_new_tokens,
            ),
            require_range("temperature", p.temperature, 0.0, MAX_TEMPERATURE),
            _require(
                p.top_k >= 0,
                "`top_k` must be at least 0, where 0 is off. Received:",
                p.top_k,
            ),
            _require(
                (p.top_p > 0) & (p.top_p <= 1),
                "`top_p` must lie above 0 and up to 1, where 1 is off. Received:",
                p.top_p,
            ),
            require_range("min_p", p.min_p, 0.0, 1.0),
            require_range(
                "repetition_penalty",
                p.repetition_penalty,
                MIN_REPETITION_PENALTY,
                MAX_REPETITION_PENALTY,
            ),
        ]
    with tf.control_dependencies(checks):
        return Parameters(*(tf.identity(value) for value in p))


def require_room(name, values, room, limit: int, prompt_in_cache: bool):
    """Returns an op that fails unless each value lies from 1 to the row's room."""
    rule = _room_rule(name, 1, limit, prompt_in_cache)
    return _require((values >= 1) & (values <= room), rule, values)


def _room_rule(name, least, limit, prompt_in_cache):
    if prompt_in_cache:
        return (
            f"`{name}` must lie from {least} to the positions left after the prompt, "
            f"of {limit} in all; ask for fewer tokens or shorten the prompt. Received:"
        )
    return (
        f"`{name}` must lie from {least} to the {limit} positions that the target "
        "has; ask for fewer tokens. Received:"
    )


def require_rows(name, value, like):
    """Returns an op that fails unless `value` has as many rows as `like`."""
    return tf.debugging.Assert(
        tf.equal(tf.shape(value)[0], tf.shape(like)[0]),
        [f"`{name}` must have one value per prompt. Received rows:", tf.shape(value)],
        name=f"check_rows_{name}",
    )


def _require(holds, rule, values):
    return tf.debugging.Assert(tf.reduce_all(holds), [rule, values], summarize=8)


def require_range(name, values, low, high):
    """Returns an op that fails unless each value lies from `low` to `high`."""
    holds = (values >= low) & (values <= high)
    rule = f"`{name}` must lie from {low:g} to {high:g}. Received:"
    return _require(holds, rule, values)
