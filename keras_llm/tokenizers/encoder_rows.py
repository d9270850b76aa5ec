"""Texts and pairs of texts as the rows that an encoder reads."""

from typing import Any, NamedTuple

import tensorflow as tf

from keras_llm.tokenizers.tokenizer import Tokenizer, rows_of_values


class Rows(NamedTuple):
    """Right-padded rows of B texts.

    Attributes:
        token_ids: int32 [B, T], T at least 1.
        segment_ids: int32 [B, T]: 1 from a pair's second text on, else 0.
        lengths: int32 [B], real tokens.
        left_out: int32 [B], tokens of the texts for which there was no room.
    """

    token_ids: tf.Tensor
    segment_ids: tf.Tensor
    lengths: tf.Tensor
    left_out: tf.Tensor


class EncoderRows:
    """Frames texts as `[cls] text [sep]`, pairs as `[cls] text [sep] pair [sep]`.

    The special ids are the tokenizer's roles "cls" and "sep". A tokenizer without
    them gives its role "end" for both.

    Args:
        tokenizer: Makes the ids.
        framed: False for a model that reads a text's ids alone, such as an LSTM; a
            pair is then `text [sep] pair`.

    >>> from keras_llm.tokenizers.byte_tokenizer import ByteTokenizer
    >>> rows = EncoderRows(ByteTokenizer())(["ab", "c"], ["d", "efg"], limit=7)
    >>> rows.token_ids.numpy()
    array([[256,  97,  98, 256, 100, 256,   0],
           [256,  99, 256, 101, 102, 103, 256]], dtype=int32)
    >>> rows.lengths.numpy(), rows.left_out.numpy()
    (array([6, 7], dtype=int32), array([0, 0], dtype=int32))
    """

    def __init__(self, tokenizer: Tokenizer, framed: bool = True):
        self.tokenizer = tokenizer
        self.framed = framed
        special_ids = tokenizer.special_ids
        self.cls_id = special_ids.get("cls", tokenizer.end_id)
        self.sep_id = special_ids.get("sep", tokenizer.end_id)

    def num_special(self, is_pair: bool) -> int:
        """Returns how many ids of a row are none of its texts'."""
        return (2 if self.framed else 0) + is_pair

    def __call__(self, text: Any, pair: Any = None, limit: int | None = None) -> Rows:
        """Returns the rows of texts; what exceeds the limit is cut.

        Of a pair the longer text loses its last tokens first, until both are alike;
        then the second one and the first lose one in turn.

        Args:
            text: String [B].
            pair: String [B], or None.
            limit: Tokens that a row may have, special ones counted; None for any.
        """
        second = None if pair is None else self.tokenizer.encode(pair)
        return self.join(self.tokenizer.encode(text), second, limit)

    def join(
        self,
        first: tf.RaggedTensor,
        second: tf.RaggedTensor | None = None,
        limit: int | None = None,
    ) -> Rows:
        """Returns the rows of texts given as ids, int32 [B, (N)]."""
        first = first.with_row_splits_dtype(tf.int64)
        pieces, left_out = [first], tf.zeros_like(first.row_lengths())
        if second is not None:
            pieces.append(second.with_row_splits_dtype(tf.int64))
        if limit is not None:
            room = limit - self.num_special(second is not None)
            pieces, left_out = _cut(pieces, room)
        cls, sep = (
            tf.fill([pieces[0].nrows(), 1], special)
            for special in (self.cls_id, self.sep_id)
        )
        opened = [cls, pieces[0]] if self.framed else [pieces[0]]
        if self.framed or second is not None:
            opened.append(sep)
        closed = pieces[1:] + ([sep] if self.framed and second is not None else [])
        rows = tf.concat([*opened, *closed], axis=1)
        opened_size = pieces[0].row_lengths() + len(opened) - 1
        token_ids = rows.to_tensor()
        token_ids = tf.pad(
            token_ids, [[0, 0], [0, tf.maximum(1 - tf.shape(token_ids)[1], 0)]]
        )
        lengths = rows.row_lengths()
        column = tf.range(tf.shape(token_ids, tf.int64)[1])[None]
        is_second = (column >= opened_size[:, None]) & (column < lengths[:, None])
        return Rows(
            token_ids,
            tf.cast(is_second, tf.int32),
            tf.cast(lengths, tf.int32),
            tf.cast(left_out, tf.int32),
        )


def _cut(pieces, room):
    """Returns the texts cut to `room` tokens together, and how many were lost."""
    sizes = [piece.row_lengths() for piece in pieces]
    if len(pieces) == 1:
        kept = [tf.minimum(sizes[0], room)]
    else:
        least = tf.constant(room // 2, tf.int64)
        second = tf.minimum(sizes[1], tf.maximum(least, room - sizes[0]))
        kept = [tf.minimum(sizes[0], room - second), second]
    cut = [_heads(piece, size) for piece, size in zip(pieces, kept, strict=True)]
    return cut, tf.add_n(sizes) - tf.add_n(kept)


def _heads(ragged, kept_B):
    """Returns the first `kept_B` values of each row."""
    row_N = rows_of_values(ragged)
    place_N = tf.range(tf.size(row_N, tf.int64)) - tf.gather(ragged.row_starts(), row_N)
    values = tf.boolean_mask(ragged.values, place_N < tf.gather(kept_B, row_N))
    return tf.RaggedTensor.from_row_lengths(values, kept_B, validate=False)
