"""Stop strings: found in the bytes of the text, also where they span tokens.

Bytes are integers here, not strings, so that the same code compiles under XLA.
"""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

MAX_STOP_STRINGS = 64
MAX_STOP_BYTES = 256
_NOTHING = -1  # In a stop string: matches any byte. In a text: no byte.


class Stops(NamedTuple):
    """The stop strings of each row as right-aligned bytes.

    Attributes:
        bytes_BSM: Int32; -1 fills the left of what is shorter than M bytes.
        lengths_BS: Int32, in bytes; 0 for a string that is off.
    """

    bytes_BSM: tf.Tensor
    lengths_BS: tf.Tensor


class Tail(NamedTuple):
    """What is known of a row's text while it grows.

    Attributes:
        bytes_BM: Int32, the last M - 1 bytes, right-aligned, -1 before the first.
        num_bytes_B: Int32, the bytes written so far.
        cut_B: Int32, where the text ends: the start of the stop string that was
            found, else the largest int32.
    """

    bytes_BM: tf.Tensor
    num_bytes_B: tf.Tensor
    cut_B: tf.Tensor


class TokenBytes(tf.Module):
    """The bytes of every token, as constants.

    Args:
        token_bytes: One bytes object per id, b"" for special tokens.
    """

    def __init__(self, token_bytes):
        super().__init__()
        lengths = np.array([len(piece) for piece in token_bytes], "int32")
        joined = np.frombuffer(b"".join(token_bytes) + b"\0", "uint8")
        self.starts = tf.constant(np.concatenate([[0], np.cumsum(lengths)]), tf.int32)
        self.flat = tf.constant(joined)
        self.longest = max(1, int(lengths.max()))

    def __call__(self, token_ids_B):
        """Returns bytes int32 [B, L], -1 after each token's last, and counts [B]."""
        starts_B = tf.gather(self.starts, token_ids_B)
        counts_B = tf.gather(self.starts, token_ids_B + 1) - starts_B
        offsets_1L = tf.range(self.longest)[None]
        last = tf.size(self.flat) - 1
        places_BL = tf.minimum(starts_B[:, None] + offsets_1L, last)
        bytes_BL = tf.cast(tf.gather(self.flat, places_BL), tf.int32)
        return tf.where(offsets_1L < counts_B[:, None], bytes_BL, _NOTHING), counts_B


def parse(stop_BS, bucket=None) -> Stops:
    """Turns stop strings into bytes; "" is off.

    Args:
        stop_BS: String tensor; S may be 0.
        bucket: Function from a size to the size to pad it to, or None.

    Raises:
        tf.errors.InvalidArgumentError: When run, on over 64 strings in a row or
            over 256 bytes in one.
    """
    lengths_BS = tf.strings.length(stop_BS, unit="BYTE")
    longest = tf.reduce_max(tf.concat([[1], tf.reshape(lengths_BS, [-1])], 0))
    count = tf.shape(stop_BS)[1]
    checks = [
        tf.debugging.Assert(
            count <= MAX_STOP_STRINGS,
            [f"`stop` must hold at most {MAX_STOP_STRINGS} strings. Received:", count],
        ),
        tf.debugging.Assert(
            longest <= MAX_STOP_BYTES,
            [
                f"A stop string must hold at most {MAX_STOP_BYTES} bytes. Received:",
                longest,
            ],
        ),
    ]
    with tf.control_dependencies(checks):
        if bucket is not None:
            longest, padded = bucket(longest), bucket(tf.maximum(count, 1))
            stop_BS = tf.pad(stop_BS, [[0, 0], [0, padded - count]])
            lengths_BS = tf.pad(lengths_BS, [[0, 0], [0, padded - count]])
        raw_BSM = tf.io.decode_raw(stop_BS, tf.uint8, fixed_length=longest)
    shift_BS1 = (longest - lengths_BS)[:, :, None]
    places_BSM = tf.range(longest)[None, None] - shift_BS1
    moved_BSM = tf.gather(raw_BSM, tf.maximum(places_BSM, 0), batch_dims=2)
    bytes_BSM = tf.where(places_BSM >= 0, tf.cast(moved_BSM, tf.int32), _NOTHING)
    return Stops(bytes_BSM, lengths_BS)


def no_stops(batch, bucket=None) -> Stops:
    """Returns the stop strings of rows that have none; holds no string op."""
    size = 1 if bucket is None else bucket(1)
    lengths_BS = tf.zeros([batch, size], tf.int32)
    return Stops(tf.fill([batch, size, size], _NOTHING), lengths_BS)


def begin(stops: Stops) -> Tail:
    """Returns the tail of an empty text."""
    batch, _, longest = tf.unstack(tf.shape(stops.bytes_BSM))
    zeros_B = tf.zeros([batch], tf.int32)
    return Tail(
        tf.fill([batch, longest - 1], _NOTHING), zeros_B, zeros_B + tf.int32.max
    )


def advance(tail: Tail, new_bytes, stops: Stops) -> Tail:
    """Adds one token's bytes to each row and looks for the stop strings.

    Args:
        tail: The text so far.
        new_bytes: What `TokenBytes` returns for the row's new token.
        stops: The row's stop strings.

    Returns:
        The tail after it. `cut_B` is set where a stop string ends within the new
        bytes; of several, the one that begins first counts.
    """
    bytes_BL, counts_B = new_bytes
    window = tf.shape(stops.bytes_BSM)[2]
    joined_BW = tf.concat([tail.bytes_BM, bytes_BL], axis=1)
    longest_token = tf.shape(bytes_BL)[1]
    # Frame j ends with new byte j.
    ends_L1 = tf.range(longest_token)[:, None]
    frames_BLM = tf.gather(joined_BW, ends_L1 + tf.range(window)[None], axis=1)
    wanted_B1SM = stops.bytes_BSM[:, None]
    equal = (wanted_B1SM == _NOTHING) | (wanted_B1SM == frames_BLM[:, :, None])
    is_real_BL1 = (tf.range(longest_token)[None] < counts_B[:, None])[:, :, None]
    is_on_B1S = (stops.lengths_BS > 0)[:, None]
    found_BLS = tf.reduce_all(equal, axis=-1) & is_real_BL1 & is_on_B1S
    last_1L1 = tf.range(1, longest_token + 1)[None, :, None]
    starts_BLS = tail.num_bytes_B[:, None, None] + last_1L1 - stops.lengths_BS[:, None]
    cuts_BLS = tf.where(found_BLS, starts_BLS, tf.int32.max)
    cut_B = tf.reduce_min(cuts_BLS, axis=[1, 2])
    kept_BM = tf.gather(
        joined_BW, counts_B[:, None] + tf.range(window - 1)[None], batch_dims=1
    )
    return Tail(kept_BM, tail.num_bytes_B + counts_B, tf.minimum(tail.cut_B, cut_B))
