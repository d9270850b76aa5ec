"""BERT's cleaning and split of text into words, as whole-tensor operations.

In this order, as the reference has it: controls, private use and U+FFFD go away; white
space becomes a space; each Chinese character and each punctuation mark is a word of its
own; accents are stripped (canonical decomposition without its nonspacing marks);
capitals become small. Every step looks at one character alone, but for one:
decomposition sorts the marks that follow one another. So each character is looked up
once, by its code point, and gives a class and the bytes of its simple form. Ill-formed
UTF-8 counts as U+FFFD and so goes away.

The one known difference from the reference: marks are not sorted into the form of a
composed musical symbol (U+1D15E and the like), should a vowel killer follow it.

P positions in the texts (bytes with separators), C characters of two bytes or more, Q
positions in the simplified texts, K positions in the texts that give some byte there,
M marks, W words.
"""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from keras_llm.tokenizers.bert_characters import (
    ALONE,
    DROPPED,
    LETTER,
    canonical_order,
    character_classes,
    simple_forms,
)
from keras_llm.tokenizers.joined_texts import JoinedTexts, join_texts, to_blocks
from keras_llm.tokenizers.utf8 import (
    LEAD_BYTES,
    WideCharacters,
    character_lengths,
    decode_wide_characters,
    find_in_pages,
    share_pages,
)

# Further codes in the simplified text: between two texts, and the bytes of a lone
# character behind its first.
_EDGE, _REST = 4, 5
# An entry: class, bytes of the simple form (0: the character itself), where they stand.
_CLASS_BITS, _LENGTH_BITS = 2, 4
_FIRST_DROPPED = 255  # In canonical order: neither sorted nor the end of a run.


class BertWords(NamedTuple):
    """The words of a batch of texts, in order."""

    texts: JoinedTexts
    blocks: tf.Tensor  # int64, the simplified bytes in blocks of eight, with two more.
    bytes_Q: tf.Tensor  # uint8, the simplified texts with separators.
    separator_B: tf.Tensor  # int32 [B + 1], where those stand.
    origin_Q: tf.Tensor  # int32, position of the character that each byte is from.
    start_W: tf.Tensor  # int32, position of each word's first simplified byte.
    length_W: tf.Tensor  # int32, in simplified bytes.

    def source_spans(self, at_N, length_N) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns where stretches of the simplified texts come from.

        Args:
            at_N: int32, position of each stretch.
            length_N: int32, its bytes.

        Returns:
            Positions in the texts of the first byte and behind the last, int32 [N].
        """
        last_N = tf.gather(self.origin_Q, at_N + length_N - 1)
        lead_N = tf.cast(tf.gather(self.texts.bytes_P, last_N), tf.int32)
        return tf.gather(self.origin_Q, at_N), last_N + character_lengths(lead_N)


class _Expansion(NamedTuple):
    """What each position of the texts gives in the simplified ones."""

    count_P: tf.Tensor  # int32, how many bytes.
    read_P: tf.Tensor  # int32, where they stand, in the texts or the forms behind.


class BertSplitter(tf.Module):
    """Splits texts into the words that WordPiece cuts into pieces.

    Args:
        lower_case: Whether capitals become small.
        strip_accents: Whether accents are removed.
    """

    def __init__(self, lower_case: bool, strip_accents: bool):
        super().__init__(name="bert_splitter")
        classes = character_classes(strip_accents)
        forms = simple_forms(lower_case, strip_accents)
        entries, form_bytes = _entries(classes, forms)
        byte_classes = np.full(256, DROPPED, np.uint8)
        byte_classes[:128] = classes[:128]
        byte_forms = np.arange(256, dtype=np.uint8)
        byte_forms[:128] = [ord(forms.get(byte, chr(byte))) for byte in range(128)]
        pages, page_start = share_pages(entries)
        order_pages, order_start = share_pages(canonical_order())
        with tf.init_scope(), tf.device("CPU:0"):
            self._byte_classes = tf.constant(byte_classes)
            self._byte_forms = tf.constant(byte_forms)
            self._entries = tf.constant(pages), tf.constant(page_start)
            self._form_bytes = tf.constant(form_bytes)
            self._order = tf.constant(order_pages), tf.constant(order_start)
        self._sorts_marks = strip_accents

    def split(self, strings_B: tf.Tensor) -> BertWords:
        """Splits texts, strings [B]."""
        texts = join_texts(strings_B)
        byte_P = tf.cast(texts.bytes_P, tf.int32)
        edges = texts.separator_B[:, tf.newaxis]
        class_P = tf.tensor_scatter_nd_update(
            tf.gather(self._byte_classes, byte_P),
            edges,
            tf.fill(tf.shape(edges)[:1], tf.constant(_EDGE, tf.uint8)),
        )
        form_P = tf.gather(self._byte_forms, byte_P)
        # The class of a byte beyond ASCII is "dropped" as long as it is taken alone.
        bytes_Q, code_Q, origin_Q = tf.cond(
            tf.reduce_any(class_P == DROPPED),
            lambda: self._expand(texts.bytes_P, form_P, class_P),
            lambda: (form_P, class_P, tf.range(tf.size(form_P))),
        )
        start_W, length_W = _find_words(code_Q)
        return BertWords(
            texts,
            to_blocks(bytes_Q),
            bytes_Q,
            tf.cast(tf.where(code_Q == _EDGE)[:, 0], tf.int32),
            origin_Q,
            start_W,
            length_W,
        )

    def _expand(self, bytes_P, form_P, class_P) -> tuple[tf.Tensor, ...]:
        """Returns the simplified bytes, their codes and their origins."""
        is_lead = (bytes_P >= LEAD_BYTES[0]) & (bytes_P <= LEAD_BYTES[-1])
        lead = tf.cast(tf.where(is_lead)[:, 0], tf.int32)
        wide = decode_wide_characters(bytes_P, lead)
        at = wide.start_C[:, tf.newaxis]
        entry_C = find_in_pages(*self._entries, wide.code_point_C)
        class_C = tf.bitwise.bitwise_and(entry_C, 2**_CLASS_BITS - 1)
        length_C = tf.bitwise.bitwise_and(
            tf.bitwise.right_shift(entry_C, _CLASS_BITS), 2**_LENGTH_BITS - 1
        )
        form_start_C = tf.bitwise.right_shift(entry_C, _CLASS_BITS + _LENGTH_BITS)
        itself_C = length_C == 0
        count_C = tf.where(itself_C, wide.length_C, length_C)
        expansion = _Expansion(
            tf.tensor_scatter_nd_update(
                tf.cast(class_P != DROPPED, tf.int32),
                at,
                tf.where(class_C == DROPPED, 0, count_C),
            ),
            tf.tensor_scatter_nd_update(
                tf.range(tf.size(bytes_P)),
                at,
                tf.where(itself_C, wide.start_C, tf.size(bytes_P) + form_start_C),
            ),
        )
        if self._sorts_marks:
            expansion = self._sort_marks(expansion, class_P, wide)
        class_P = tf.tensor_scatter_nd_update(
            class_P, at, tf.cast(class_C, class_P.dtype)
        )
        source = tf.concat([form_P, self._form_bytes], axis=0)
        return _apply(expansion, source, class_P)

    def _sort_marks(self, expansion: _Expansion, class_P, wide: WideCharacters):
        """Puts marks that stay into canonical order.

        A mark then counts as coming from the place that it moves to.
        """
        order_C = find_in_pages(*self._order, wide.code_point_C)
        order_P = tf.tensor_scatter_nd_update(
            tf.where(
                class_P == DROPPED,
                tf.constant(_FIRST_DROPPED, tf.uint8),
                tf.constant(0, tf.uint8),
            ),
            wide.start_C[:, tf.newaxis],
            order_C,
        )
        is_mark_P = (order_P > 0) & (order_P < _FIRST_DROPPED)

        def sort() -> _Expansion:
            mark_M = tf.where(is_mark_P)[:, 0]
            run_P = tf.cumsum(tf.cast(order_P == 0, tf.int64))
            rank_M = tf.gather(run_P, mark_M) * 256 + tf.cast(
                tf.gather(order_P, mark_M), tf.int64
            )
            # Marks of one class keep their order.
            count = tf.size(mark_M, tf.int64)
            from_M = tf.gather(mark_M, tf.argsort(rank_M * count + tf.range(count)))
            return _Expansion(
                *(
                    tf.tensor_scatter_nd_update(
                        values_P, mark_M[:, tf.newaxis], tf.gather(values_P, from_M)
                    )
                    for values_P in expansion
                )
            )

        return tf.cond(tf.reduce_any(is_mark_P), sort, lambda: expansion)


def _apply(expansion: _Expansion, source, class_P) -> tuple[tf.Tensor, ...]:
    """Writes the simplified bytes; returns them, their codes and their origins."""
    kept = tf.where(expansion.count_P > 0)[:, 0]
    count_K = tf.gather(expansion.count_P, kept)
    start_K = tf.cumsum(count_K, exclusive=True)
    begins_Q = tf.scatter_nd(
        start_K[:, tf.newaxis], tf.ones_like(start_K), tf.reduce_sum(count_K)[None]
    )
    which_Q = tf.cumsum(begins_Q) - 1
    read_K = tf.gather(expansion.read_P, kept) - start_K
    bytes_Q = tf.gather(source, tf.gather(read_K, which_Q) + tf.range(tf.size(which_Q)))
    class_Q = tf.gather(tf.gather(class_P, kept), which_Q)
    code_Q = tf.where(
        (class_Q == ALONE) & (begins_Q == 0), tf.constant(_REST, tf.uint8), class_Q
    )
    return bytes_Q, code_Q, tf.gather(tf.cast(kept, tf.int32), which_Q)


def _find_words(code_Q: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns start and length of each word."""
    before_Q = tf.concat([[tf.constant(_REST, tf.uint8)], code_Q[:-1]], axis=0)
    begins_Q = (code_Q == ALONE) | ((code_Q != before_Q) & (code_Q != _REST))
    # What stands between words starts a stretch too: that ends the word before it.
    start = tf.cast(tf.where(begins_Q)[:, 0], tf.int32)
    code = tf.gather(code_Q, start[:-1])
    is_word = tf.where((code == LETTER) | (code == ALONE))[:, 0]
    length = start[1:] - start[:-1]
    return tf.gather(start, is_word), tf.gather(length, is_word)


def _entries(classes: np.ndarray, forms: dict[int, str]):
    """Returns the entry of every code point, int32, and the forms' bytes, uint8."""
    entries = classes.astype(np.int32)
    joined = bytearray()
    for code_point, form in forms.items():
        encoded = form.encode()
        entries[code_point] |= (
            len(encoded) << _CLASS_BITS | len(joined) << _CLASS_BITS + _LENGTH_BITS
        )
        joined += encoded
    return entries, np.frombuffer(bytes(joined), np.uint8)
