r"""Llama 3's and Qwen 2's split of text into words, as whole-tensor operations.

The reference is the regular expression
`(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+
[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+` (Qwen 2 has `\p{N}` alone), which RE2 cannot run, for
the reasons that `splitting` gives. Character by character, a word starts:

- at a letter behind a number or a line's end, or behind other signs that make a word
  of their own: two of them or more, or a plain space and one; a single sign, and any
  white space, belongs to the letters that follow;
- at another sign, unless a sign or a plain space stands before it;
- at the first, fourth, seventh ... number of a run (Qwen 2: at each);
- at a line's end behind a letter or a number: one behind a sign belongs to that word,
  one behind white space to what began there;
- at white space behind anything else, and always at the last one before a non-space,
  since `\s+(?!\S)` stops short of it. Behind a line's end: only if no other line's end
  follows before the next non-space, or if the one before belongs to a sign's word;
- behind a contraction, which an apostrophe opens that starts a word.

All but the two rules that reach further are read off four neighbours' classes in one
table. Ill-formed UTF-8 counts as other signs, byte by byte.

P positions (bytes with one separator before, between and after the texts), C
characters, W words, Q characters that a rule asks about.
"""

import numpy as np
import tensorflow as tf

from keras_llm.tokenizers import unicode_classes
from keras_llm.tokenizers.joined_texts import HIGH_BITS, join_texts
from keras_llm.tokenizers.splitting import Words, cut_words
from keras_llm.tokenizers.utf8 import (
    LEAD_BYTES,
    decode_wide_characters,
    find_in_pages,
    share_pages,
)

(
    _EDGE,  # Between two texts.
    _BLANK,  # U+0020
    _SPACE,  # Other white space.
    _BREAK,  # CR and LF.
    _NUMBER,
    _LETTER,
    _OTHER,
    _APOSTROPHE,
    _LEAD,  # What may be the first byte of a wider character; else like _OTHER.
    _REST,  # A wider character's bytes behind the first.
) = range(10)
_CLASSES = 8  # Those that characters have.
# What starts at a character.
_NOTHING, _WORD, _ASK_RUN, _ASK_CONTRACTION = range(4)


def split_by_runs(strings_B: tf.Tensor, digits: int) -> Words:
    """Splits texts, strings [B].

    Args:
        strings_B: Any bytes.
        digits: Most numbers of a word: 3 is Llama 3's pattern, 1 is Qwen 2's.
    """
    joined = join_texts(strings_B)
    class_P = tf.tensor_scatter_nd_update(
        tf.gather(_BYTE_CLASSES, tf.cast(joined.bytes_P, tf.int32)),
        joined.separator_B[:, tf.newaxis],
        tf.fill(tf.shape(joined.separator_B), tf.constant(_EDGE, tf.uint8)),
    )
    class_P = tf.cond(
        tf.reduce_any(tf.bitwise.bitwise_and(joined.blocks, HIGH_BITS) != 0),
        lambda: _with_wide_classes(class_P, joined.bytes_P),
        lambda: class_P,
    )
    at_C = _where(class_P != _REST)
    class_C = tf.gather(class_P, at_C)
    first_W = _where(_starts(class_C, at_C, joined.bytes_P, digits))
    is_separator = tf.gather(class_C, first_W) == _EDGE
    return cut_words(joined, tf.gather(at_C, first_W), is_separator)


def _with_wide_classes(class_P: tf.Tensor, bytes_P: tf.Tensor) -> tf.Tensor:
    """Gives every character beyond ASCII its class, at its first byte."""
    wide = decode_wide_characters(bytes_P, _where(class_P == _LEAD))
    class_C = find_in_pages(_CHARACTER_CLASSES, _PAGE_START, wide.code_point_C)
    class_P = tf.where(class_P == _LEAD, tf.constant(_OTHER, tf.uint8), class_P)
    class_P = tf.tensor_scatter_nd_update(class_P, wide.start_C[:, tf.newaxis], class_C)
    offset = tf.range(1, 4)
    cell = tf.where(offset < wide.length_C[:, tf.newaxis])
    at = tf.gather(wide.start_C, cell[:, 0]) + tf.cast(cell[:, 1], tf.int32) + 1
    return _put(class_P, at, _REST)


def _starts(class_C, at_C, bytes_P, digits: int) -> tf.Tensor:
    """Returns bool [C]: does a word start at this character?"""
    padded = tf.cast(tf.pad(class_C, [[2, 1]]), tf.int32)  # _EDGE is 0.
    window_C = padded[:-3]
    for shifted in (padded[1:-2], padded[2:-1], padded[3:]):
        window_C = window_C * _CLASSES + shifted
    event_C = tf.gather(_EVENTS, window_C)
    starts_C = (event_C == _WORD) | (event_C == _ASK_CONTRACTION)
    starts_C = _in_numbers(starts_C, class_C, digits)
    asked = _where(event_C == _ASK_RUN)
    starts_C = tf.cond(
        tf.size(asked) > 0,
        lambda: _behind_line_ends(starts_C, class_C, asked),
        lambda: starts_C,
    )
    apostrophe = _where(event_C == _ASK_CONTRACTION)
    return _behind_contractions(starts_C, apostrophe, at_C, bytes_P)


def _in_numbers(starts_C, class_C, digits: int) -> tf.Tensor:
    """Adds the starts inside runs of numbers."""
    number = _where(class_C == _NUMBER)
    first = tf.gather(starts_C, number)
    run = tf.cumsum(tf.cast(first, tf.int32)) - 1
    place = tf.range(tf.size(number)) - tf.gather(_where(first), run)
    return _put(starts_C, tf.boolean_mask(number, place % digits == 0), True)


def _behind_line_ends(starts_C, class_C, asked_Q) -> tf.Tensor:
    """Adds white space behind a line's end, where no other end takes it in."""
    is_space = (class_C == _BLANK) | (class_C == _SPACE)
    others = _where(~is_space)
    follows = tf.gather(others, tf.searchsorted(others, asked_Q))
    others = _where(class_C != _BREAK)
    precedes = tf.gather(others, tf.searchsorted(others, asked_Q) - 1)
    precedes = tf.gather(class_C, precedes)
    starts = tf.gather(class_C, follows) != _BREAK
    starts |= (precedes == _OTHER) | (precedes == _APOSTROPHE)
    return _put(starts_C, tf.boolean_mask(asked_Q, starts), True)


def _behind_contractions(starts_C, apostrophe_Q, at_C, bytes_P) -> tf.Tensor:
    """Adds what follows the contractions that open at these apostrophes."""
    at = tf.gather(at_C, apostrophe_Q)[:, tf.newaxis] + [1, 2]
    both = tf.cast(tf.gather(bytes_P, at), tf.int32)
    length = tf.gather(_CONTRACTIONS, both[:, 0] * 256 + both[:, 1])
    is_one = length > 0
    behind = tf.boolean_mask(apostrophe_Q + 1 + length, is_one)
    return _put(starts_C, behind, True)


def _put(values, at, value) -> tf.Tensor:
    """Returns a vector with one value at some places."""
    fill = tf.fill(tf.shape(at), tf.constant(value, values.dtype))
    return tf.tensor_scatter_nd_update(values, at[:, tf.newaxis], fill)


def _where(mask: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.where(mask)[:, 0], tf.int32)


def _character_classes() -> np.ndarray:
    """Returns the class of every character by its code point."""
    to_class = np.zeros(4, np.uint8)
    to_class[unicode_classes.OTHER] = _OTHER
    to_class[unicode_classes.LETTER] = _LETTER
    to_class[unicode_classes.NUMBER] = _NUMBER
    to_class[unicode_classes.SPACE] = _SPACE
    classes = to_class[unicode_classes.character_classes()]
    for character, value in ((" ", _BLANK), ("\r", _BREAK), ("\n", _BREAK)):
        classes[ord(character)] = value
    classes[ord("'")] = _APOSTROPHE
    return classes


def _byte_classes() -> np.ndarray:
    """Returns the class of every byte taken alone, uint8 [256]."""
    classes = np.full(256, _OTHER, np.uint8)
    classes[:128] = _character_classes()[:128]
    classes[LEAD_BYTES] = _LEAD
    return classes


def _events() -> np.ndarray:
    """Returns what starts at a character, by (last but one, last, it, next)."""
    before2, before, here, after = np.indices((_CLASSES,) * 4)
    sign, space = [_OTHER, _APOSTROPHE], [_BLANK, _SPACE]
    joined_sign = np.isin(before2, [*sign, _BLANK])
    letter = np.isin(before, [_EDGE, _BREAK, _NUMBER])
    letter |= np.isin(before, sign) & joined_sign
    before_word = np.isin(after, [_NUMBER, _LETTER, *sign])
    rules = {
        _EDGE: True,
        _NUMBER: before != _NUMBER,
        _LETTER: letter,
        _BREAK: np.isin(before, [_EDGE, _NUMBER, _LETTER]),
    }
    rules |= dict.fromkeys(sign, ~np.isin(before, [*sign, _BLANK]))
    behind_word = np.isin(before, [_EDGE, _NUMBER, _LETTER, *sign])
    rules |= dict.fromkeys(space, behind_word | before_word)
    starts = np.zeros(here.shape, bool)
    for each, rule in rules.items():
        starts |= (here == each) & rule
    events = np.where(starts, _WORD, _NOTHING)
    asked = np.isin(here, space) & (before == _BREAK) & ~starts
    events[asked] = _ASK_RUN
    opens = starts & (here == _APOSTROPHE) & (after == _LETTER)
    events[opens] = _ASK_CONTRACTION
    return events.reshape(-1).astype(np.uint8)


def _contractions() -> np.ndarray:
    """Returns the letters of a contraction by its first two bytes, 0 for none."""
    lengths = np.zeros((256, 256), np.int32)
    for letter in "sdtm":
        lengths[[ord(letter), ord(letter.upper())]] = 1
    lengths[(*"\u017f".encode(),)] = 1  # Small letter long s, which folds to "s".
    for first, second in ("re", "ve", "ll"):
        for one in (first, first.upper()):
            for other in (second, second.upper()):
                lengths[ord(one), ord(other)] = 2
    return lengths.reshape(-1)


_BYTE_CLASSES = _byte_classes()
_CHARACTER_CLASSES, _PAGE_START = share_pages(_character_classes())
_EVENTS = _events()
_CONTRACTIONS = _contractions()
