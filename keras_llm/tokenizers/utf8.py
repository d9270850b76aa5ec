"""UTF-8 in the graph: repair of strings, decoding of wide characters in bytes."""

from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

# First bytes of characters of two bytes and more.
LEAD_BYTES = range(0xC2, 0xF5)
_PAGE = 256  # Characters in a page of a table by code point.


def repair_utf8(strings: Any) -> tf.Tensor:
    r"""Replaces every ill-formed part of each string by U+FFFD.

    What a model generates, or what a length limit cuts, may end inside a character;
    clients and JSON need valid UTF-8.

    Args:
        strings: String tensor of any shape.

    Returns:
        String tensor of the same shape; valid UTF-8 comes back unchanged.

    >>> repair_utf8([b"whale", b"caf\xc3"]).numpy().tolist()
    [b'whale', b'caf\xef\xbf\xbd']
    """
    return tf.strings.unicode_transcode(
        tf.convert_to_tensor(strings, tf.string),
        "UTF-8",
        "UTF-8",
        errors="replace",
        replacement_char=0xFFFD,
    )


class WideCharacters(NamedTuple):
    """The well-formed characters of two bytes or more in a text, C of them."""

    start_C: tf.Tensor  # int32, position of the first byte.
    length_C: tf.Tensor  # int32, 2 to 4 bytes.
    code_point_C: tf.Tensor  # int32.


def decode_wide_characters(bytes_P: tf.Tensor, lead_L: tf.Tensor) -> WideCharacters:
    """Decodes the characters beyond ASCII; ill-formed ones are passed over.

    Args:
        bytes_P: uint8, UTF-8 text.
        lead_L: int32, where bytes stand that are among `LEAD_BYTES`.
    """
    # Four bytes from each lead; the text's own last bytes get NULs behind them.
    window_L4 = tf.cast(
        tf.gather(tf.pad(bytes_P, [[0, 3]]), lead_L[:, tf.newaxis] + tf.range(4)),
        tf.int32,
    )
    first_L = window_L4[:, 0]
    well_formed_L = tf.reduce_all(
        (window_L4 >= tf.gather(_LOWEST, first_L))
        & (window_L4 <= tf.gather(_HIGHEST, first_L)),
        axis=1,
    )
    kept = tf.where(well_formed_L)[:, 0]
    first_C = tf.gather(first_L, kept)
    payload_C4 = tf.bitwise.bitwise_and(
        tf.gather(window_L4, kept), tf.gather(_PAYLOAD, first_C)
    )
    return WideCharacters(
        start_C=tf.gather(lead_L, kept),
        length_C=tf.gather(_LENGTH, first_C),
        code_point_C=tf.reduce_sum(payload_C4 * tf.gather(_WEIGHT, first_C), axis=1),
    )


def character_lengths(first_byte_C: tf.Tensor) -> tf.Tensor:
    """Returns the bytes of characters, int32, by their first ones, int32."""
    return tf.maximum(tf.gather(_LENGTH, first_byte_C), 1)


def share_pages(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compresses a table by code point, since most pages of 256 are alike.

    Args:
        values: [0x110000].

    Returns:
        The different pages, one behind another, and where each page starts, int32.

    >>> pages, start = share_pages(np.arange(0x110000) < 100)
    >>> len(pages), start[:3]
    (512, array([  0, 256, 256], dtype=int32))
    """
    first: dict[bytes, int] = {}
    pages = values.reshape(-1, _PAGE)
    page_of = [first.setdefault(page.tobytes(), len(first)) for page in pages]
    shared = np.concatenate([np.frombuffer(page, values.dtype) for page in first])
    return shared, np.array(page_of, np.int32) * _PAGE


def find_in_pages(pages, page_start, code_point_C: tf.Tensor) -> tf.Tensor:
    """Looks code points up in what `share_pages` returned."""
    start_C = tf.gather(page_start, tf.bitwise.right_shift(code_point_C, 8))
    return tf.gather(pages, start_C + tf.bitwise.bitwise_and(code_point_C, _PAGE - 1))


def _lead_byte_tables() -> tuple[np.ndarray, ...]:
    """Returns, by lead byte: length, bounds, payload bits and weights of 4 bytes."""
    length = np.zeros(256, np.int32)
    lowest = np.zeros((256, 4), np.int32)
    highest = np.full((256, 4), 255, np.int32)
    payload = np.zeros((256, 4), np.int32)
    weight = np.zeros((256, 4), np.int32)
    for lead in LEAD_BYTES:
        size = 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
        length[lead] = size
        lowest[lead, 1:size], highest[lead, 1:size] = 0x80, 0xBF
        payload[lead, 0] = 0x7F >> size
        payload[lead, 1:size] = 0x3F
        weight[lead, :size] = 64 ** np.arange(size - 1, -1, -1)
    # Overlong forms, surrogates, and what lies beyond U+10FFFF.
    lowest[0xE0, 1], lowest[0xF0, 1] = 0xA0, 0x90
    highest[0xED, 1], highest[0xF4, 1] = 0x9F, 0x8F
    return length, lowest, highest, payload, weight


_LENGTH, _LOWEST, _HIGHEST, _PAYLOAD, _WEIGHT = _lead_byte_tables()
