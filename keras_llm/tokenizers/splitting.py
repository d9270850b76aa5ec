r"""GPT-2's split of text into words, as whole-tensor operations on bytes.

The reference is the regular expression
`'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`.
RE2, which TensorFlow has, knows no look-ahead, takes `\s` as ASCII and follows an
older Unicode. But every alternative can be decided from a few neighbouring bytes:

- a word starts where the class of character changes (letter, number, other, white
  space), except behind a plain space, which belongs to the word that follows;
- the last white-space character before a non-space starts a word of its own, since
  `\s+(?!\S)` stops short of it;
- an apostrophe that starts a word takes a contraction's letters with it, and the
  next word starts right behind them.

So each byte gets a code of four bits, four codes make an index, and one look-up in a
table of 65,536 entries says what starts at that byte. Ill-formed UTF-8 counts as
"other", byte by byte, so that any bytes can be split and none is lost.

P positions (bytes with one separator before, between and after the texts), W words.
"""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from keras_llm.tokenizers import unicode_classes
from keras_llm.tokenizers.joined_texts import HIGH_BITS, JoinedTexts, join_texts
from keras_llm.tokenizers.utf8 import (
    LEAD_BYTES,
    decode_wide_characters,
    find_in_pages,
    share_pages,
)

# Letters that contractions are made of have codes of their own.
(
    _EDGE,  # Between two texts.
    _BLANK,  # U+0020
    _SPACE,  # Other white space of one byte.
    _NUMBER,
    _OTHER,
    _APOSTROPHE,
    _SDMT,
    _R,
    _V,
    _L,
    _E,
    _LETTER,
    _WIDE_SPACE,  # First byte of wider white space, ...
    _LAST_WIDE_SPACE,  # ... the same with no space behind it, ...
    _WIDE_SPACE_REST,  # ... and the bytes that follow it.
    _LEAD,  # What may be the first byte of a wider character; else like _OTHER.
) = range(16)
_IS_WORD = np.isin(np.arange(16), [*range(_NUMBER, _LETTER + 1), _LEAD])
_IS_SPACE = np.isin(
    np.arange(16),
    [_BLANK, _SPACE, _WIDE_SPACE, _LAST_WIDE_SPACE, _WIDE_SPACE_REST],
)
# What starts at a byte; the last two are also the contraction's length.
_NOTHING, _WORD, _SHORT_CONTRACTION, _LONG_CONTRACTION = range(4)


class Words(NamedTuple):
    """The words of a batch of texts, in order."""

    blocks: tf.Tensor  # int64, the bytes in blocks of eight, with two blocks more.
    bytes_P: tf.Tensor  # uint8, the texts with a NUL before, between and after.
    separator_B: tf.Tensor  # int32 [B + 1], where those NULs stand.
    start_W: tf.Tensor  # int32, position of each word's first byte.
    length_W: tf.Tensor  # int32, in bytes.


def split_words(strings_B: tf.Tensor, single_digits: bool = False) -> Words:
    """Splits texts by GPT-2's pattern.

    Args:
        strings_B: The texts.
        single_digits: Whether each character of a number is a word of its own, and
            what lies between two of them is split like a whole text.
    """
    joined = join_texts(strings_B)
    blocks, bytes_P, separator_B = joined
    codes_P = tf.tensor_scatter_nd_update(
        tf.gather(_BYTE_CODES, tf.cast(bytes_P, tf.int32)),
        separator_B[:, tf.newaxis],
        tf.fill(tf.shape(separator_B), tf.constant(_EDGE, tf.uint8)),
    )
    codes_P = tf.cond(
        tf.reduce_any(tf.bitwise.bitwise_and(blocks, HIGH_BITS) != 0),
        lambda: _with_wide_codes(codes_P, bytes_P, single_digits),
        lambda: codes_P,
    )
    if single_digits:
        number_P = codes_P == _NUMBER
        inside_P = number_P & (bytes_P & 0xC0 == 0x80)  # Of a number of several bytes.
        starts_P = _word_starts(tf.where(number_P, np.uint8(_EDGE), codes_P))
        starts_P &= ~inside_P
    else:
        starts_P = _word_starts(codes_P)
    start_W = tf.cast(tf.where(starts_P)[:, 0], tf.int32)
    return cut_words(joined, start_W, tf.gather(codes_P, start_W) == _EDGE)


def cut_words(
    joined: JoinedTexts, start_W: tf.Tensor, is_separator_W: tf.Tensor
) -> Words:
    """Returns the words that start at given bytes, each up to the next.

    Args:
        joined: The texts.
        start_W: int32, in order; separators are among them and end the word before.
        is_separator_W: bool.
    """
    length_W = start_W[1:] - start_W[:-1]
    is_word = tf.where(~is_separator_W[:-1])[:, 0]
    return Words(*joined, tf.gather(start_W, is_word), tf.gather(length_W, is_word))


def _word_starts(codes_P: tf.Tensor) -> tf.Tensor:
    """Returns bool [P] from uint8 codes [P]: does a word start here?"""
    padded = tf.pad(codes_P, [[1, 2]])  # _EDGE is 0.
    pair = padded[:-1] * 16 + padded[1:]
    window_P = tf.cast(pair[:-2], tf.int32) * 256 + tf.cast(pair[2:], tf.int32)
    event_P = tf.gather(_EVENTS, window_P)
    # Contractions are few: what they change is written one by one.
    contraction = tf.where(event_P >= _SHORT_CONTRACTION)
    length = tf.cast(tf.gather(event_P, contraction), tf.int64)
    return tf.tensor_scatter_nd_update(
        event_P != _NOTHING,
        tf.concat([contraction + 1, contraction + length], axis=0),
        tf.concat([tf.zeros_like(length, tf.bool), tf.ones_like(length, tf.bool)], 0)[
            :, 0
        ],
    )


def _with_wide_codes(
    codes_P: tf.Tensor, bytes_P: tf.Tensor, single_digits: bool
) -> tf.Tensor:
    """Corrects the codes of letters, numbers and spaces beyond ASCII."""
    is_word = _IS_WORD & (np.arange(16) != _NUMBER) if single_digits else _IS_WORD
    lead = tf.cast(tf.where(codes_P == _LEAD)[:, 0], tf.int32)
    wide = decode_wide_characters(bytes_P, lead)
    code_C = find_in_pages(_CHARACTER_CODES, _PAGE_START, wide.code_point_C)
    code_C4 = tf.gather(_CODES_OF_BYTES, tf.cast(code_C, tf.int32))
    offset = tf.range(4)
    cell = tf.where((offset < wide.length_C[:, tf.newaxis]) & (code_C4 != _OTHER))
    at = tf.gather(wide.start_C, cell[:, 0]) + tf.cast(cell[:, 1], tf.int32)
    codes_P = tf.tensor_scatter_nd_update(
        codes_P, at[:, tf.newaxis], tf.gather_nd(code_C4, cell)
    )
    space = tf.where(code_C == _WIDE_SPACE)[:, 0]
    space_at = tf.gather(wide.start_C, space)
    behind = tf.gather(codes_P, space_at + tf.gather(wide.length_C, space))
    last = tf.boolean_mask(space_at, tf.gather(is_word, tf.cast(behind, tf.int32)))
    return tf.tensor_scatter_nd_update(
        codes_P,
        last[:, tf.newaxis],
        tf.fill(tf.shape(last), tf.constant(_LAST_WIDE_SPACE, tf.uint8)),
    )


def _byte_codes() -> np.ndarray:
    """Returns the code of every byte taken alone, uint8 [256]."""
    codes = np.full(256, _OTHER, np.uint8)
    codes[LEAD_BYTES] = _LEAD
    classes = unicode_classes.character_classes()[:128]
    codes[:128][classes == unicode_classes.LETTER] = _LETTER
    codes[:128][classes == unicode_classes.NUMBER] = _NUMBER
    codes[:128][classes == unicode_classes.SPACE] = _SPACE
    singles = {" ": _BLANK, "'": _APOSTROPHE, "r": _R, "v": _V, "l": _L, "e": _E}
    for character, code in [*singles.items(), *((c, _SDMT) for c in "sdmt")]:
        codes[ord(character)] = code
    return codes


def _character_codes() -> np.ndarray:
    """Returns the code of every wide character by its code point."""
    to_code = np.zeros(4, np.uint8)
    to_code[unicode_classes.OTHER] = _OTHER
    to_code[unicode_classes.LETTER] = _LETTER
    to_code[unicode_classes.NUMBER] = _NUMBER
    to_code[unicode_classes.SPACE] = _WIDE_SPACE
    return to_code[unicode_classes.character_classes()]


def _codes_of_bytes() -> np.ndarray:
    """Returns the codes of a wide character's four bytes by its own code."""
    codes = np.repeat(np.arange(16, dtype=np.uint8)[:, None], 4, axis=1)
    codes[_WIDE_SPACE, 1:] = _WIDE_SPACE_REST
    return codes


def _events() -> np.ndarray:
    """Returns what starts at a byte, by (code before, code, next, next but one)."""
    before, here, after, second = np.indices((16,) * 4)
    group = np.arange(16)
    group[[_APOSTROPHE, _LEAD]] = _OTHER
    group[[_SDMT, _R, _V, _L, _E]] = _LETTER
    changes = group[before] != group[here]
    starts = np.where(
        _IS_SPACE[here],
        ~_IS_SPACE[before] | ((here != _WIDE_SPACE) & _IS_WORD[after]),
        changes & (before != _BLANK),
    )
    starts[here == _WIDE_SPACE_REST] = False
    starts[here == _LAST_WIDE_SPACE] = True
    starts[here == _EDGE] = True
    apostrophe = starts & (here == _APOSTROPHE)
    ends_in_e = ((after == _R) | (after == _V)) & (second == _E)
    events = np.where(starts, _WORD, _NOTHING)
    events[apostrophe & (after == _SDMT)] = _SHORT_CONTRACTION
    events[apostrophe & (ends_in_e | ((after == _L) & (second == _L)))] = (
        _LONG_CONTRACTION
    )
    return events.reshape(-1).astype(np.uint8)


_BYTE_CODES = _byte_codes()
_CHARACTER_CODES, _PAGE_START = share_pages(_character_codes())
_CODES_OF_BYTES = _codes_of_bytes()
_EVENTS = _events()
