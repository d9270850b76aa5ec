"""Greedy longest-match-first, for all words of a batch at once.

WordPiece takes from the front of a word the longest piece that the vocabulary has, then
goes on behind it with the pieces that continue a word. One piece after another, a batch
would take as many rounds as its most divided word has pieces, each with a search of its
own. So the searches come first: from every byte of every word a walk down the tree of
pieces, all walks side by side, one byte a round; most end after a few. That takes as
many rounds as the longest piece has bytes. Which of the answers count is then a matter
of following them from the front of each word.

F places of the words (their bytes, each word with one place more behind it), R words, A
what is still under way.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from keras_llm.tokenizers.pair_table import NO_RANK, PairTable

_FRONT, _INSIDE = 0, 1  # The roots of the two trees.
_END = 256  # Stands behind a word; no byte.


class Pieces(NamedTuple):
    """The pieces of a batch of words, in order."""

    at_N: tf.Tensor  # int32, position of each piece's first byte.
    id_N: tf.Tensor  # int32.
    length_N: tf.Tensor  # int32, in bytes.


class LongestMatch(tf.Module):
    """The pieces of a vocabulary as constant tensors.

    Args:
        front: Bytes of the pieces that begin a word, with their ids.
        inside: Bytes of the pieces that continue one, with theirs.
        unknown_id: The id of a word that is not made of pieces.
        max_characters: A longer word is unknown.
    """

    def __init__(
        self,
        front: Mapping[bytes, int],
        inside: Mapping[bytes, int],
        unknown_id: int,
        max_characters: int,
    ):
        super().__init__(name="longest_match")
        children: dict[tuple[int, int], int] = {}
        ids = [-1, -1]
        for root, pieces in ((_FRONT, front), (_INSIDE, inside)):
            for piece, number in pieces.items():
                node = root
                for byte in piece:
                    child = children.setdefault((node, byte), len(ids))
                    if child == len(ids):
                        ids.append(-1)
                    node = child
                ids[node] = number
        self._table = PairTable(
            np.array(list(children), np.int64).reshape(-1, 2),
            np.array(list(children.values()), np.int64),
            max(len(ids), _END),
        )
        self._unknown_id = unknown_id
        self._max_characters = max_characters
        with tf.init_scope(), tf.device("CPU:0"):
            self._ids = tf.constant(ids, tf.int32)

    def divide(self, bytes_Q, start_R, length_R) -> Pieces:
        """Divides words into pieces.

        Args:
            bytes_Q: uint8, the text; valid UTF-8 within the words.
            start_R: int32, position of each word's first byte, ascending.
            length_R: int32, its bytes; no word is empty.
        """
        places = tf.ragged.range(start_R, start_R + length_R + 1)
        splits = tf.cast(places.row_splits, tf.int32)
        at_F = places.values
        # Behind the last word of all there may be no byte.
        byte_F = tf.cast(tf.gather(tf.pad(bytes_Q, [[0, 1]]), at_F), tf.int32)
        # Bytes 10xxxxxx continue a character.
        begins_F = tf.bitwise.bitwise_and(byte_F, 0xC0) != 0x80
        end_R = splits[1:] - 1
        counted_F = tf.cumsum(tf.cast(begins_F, tf.int32))
        size_R = tf.gather(counted_F, end_R - 1) - tf.gather(counted_F, splits[:-1])
        known = tf.where(size_R < self._max_characters)[:, 0]  # The first is not in.
        byte_F = tf.tensor_scatter_nd_update(
            byte_F, end_R[:, tf.newaxis], tf.fill(tf.shape(end_R), _END)
        )
        front_A, end_A = tf.gather(splits[:-1], known), tf.gather(end_R, known)
        best = self._search(byte_F, front_A, end_A)
        taken_F, complete_A = _follow(best[1], front_A, end_A)
        complete_R = tf.scatter_nd(
            known[:, tf.newaxis], complete_A, tf.shape(start_R, tf.int64)
        )
        return self._collect(best, taken_F, complete_R, splits, (at_F, length_R))

    def _search(self, byte_F, front_A, end_A) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the id and the length of the longest piece from each place.

        The length is 0 where there is none.
        """
        inside = tf.ragged.range(front_A + 1, end_A).values
        start = tf.concat([front_A, inside], axis=0)
        node = tf.concat(
            [tf.fill(tf.shape(front_A), _FRONT), tf.fill(tf.shape(inside), _INSIDE)],
            axis=0,
        )

        def step(depth, start_A, node_A, id_F, length_F):
            _, child_A = self._table.find(node_A, tf.gather(byte_F, start_A + depth))
            going = tf.where(child_A != NO_RANK)[:, 0]
            start_A, node_A = tf.gather(start_A, going), tf.gather(child_A, going)
            id_A = tf.gather(self._ids, node_A)
            found = tf.where(id_A >= 0)[:, 0]
            at = tf.gather(start_A, found)[:, tf.newaxis]
            id_F = tf.tensor_scatter_nd_update(id_F, at, tf.gather(id_A, found))
            length_F = tf.tensor_scatter_nd_update(
                length_F, at, tf.fill(tf.shape(found), depth + 1)
            )
            return depth + 1, start_A, node_A, id_F, length_F

        vector = tf.TensorShape([None])
        nothing_F = tf.zeros_like(byte_F)
        *_, id_F, length_F = tf.while_loop(
            lambda depth, start_A, *_: tf.size(start_A) > 0,
            step,
            (0, start, node, nothing_F, nothing_F),
            shape_invariants=(tf.TensorShape([]), *(vector,) * 4),
        )
        return id_F, length_F

    def _collect(self, best, taken_F, complete_R, splits, words) -> Pieces:
        """Returns the pieces of complete words, and an unknown for each other."""
        (id_F, length_F), (at_F, length_R) = best, words
        unknown = tf.cast(tf.where(~complete_R)[:, 0], tf.int32)
        first = tf.gather(splits, unknown)[:, tf.newaxis]
        # What was found of an unknown word does not count.
        row_F = tf.cumsum(
            tf.scatter_nd(
                splits[:-1, tf.newaxis],
                tf.ones_like(length_R),
                tf.shape(at_F),
            )
        )
        complete_F = tf.gather(complete_R, row_F - 1)
        taken_F = tf.tensor_scatter_nd_update(
            taken_F & complete_F, first, tf.fill(tf.shape(unknown), True)
        )
        id_F = tf.tensor_scatter_nd_update(
            id_F, first, tf.fill(tf.shape(unknown), self._unknown_id)
        )
        length_F = tf.tensor_scatter_nd_update(
            length_F, first, tf.gather(length_R, unknown)
        )
        chosen = tf.where(taken_F)[:, 0]
        return Pieces(
            *(tf.gather(values_F, chosen) for values_F in (at_F, id_F, length_F))
        )


def _follow(length_F, front_A, end_A) -> tuple[tf.Tensor, tf.Tensor]:
    """Follows the longest pieces from the front of each word.

    Returns:
        bool [F], where a piece begins that is reached; bool [A], whether the pieces
        go on to the end of the word.
    """

    def step(at_A, end_A, word_A, taken_F, complete):
        length_A = tf.gather(length_F, at_A)
        found = tf.where(length_A > 0)[:, 0]
        at_A, end_A, word_A, length_A = (
            tf.gather(each, found) for each in (at_A, end_A, word_A, length_A)
        )
        taken_F = tf.tensor_scatter_nd_update(
            taken_F, at_A[:, tf.newaxis], tf.fill(tf.shape(at_A), True)
        )
        at_A += length_A
        done = tf.gather(word_A, tf.where(at_A == end_A)[:, 0])
        complete = tf.tensor_scatter_nd_update(
            complete, done[:, tf.newaxis], tf.fill(tf.shape(done), True)
        )
        rest = tf.where(at_A < end_A)[:, 0]
        return (
            *(tf.gather(each, rest) for each in (at_A, end_A, word_A)),
            taken_F,
            complete,
        )

    vector = tf.TensorShape([None])
    *_, taken_F, complete = tf.while_loop(
        lambda at_A, *_: tf.size(at_A) > 0,
        step,
        (
            front_A,
            end_A,
            tf.range(tf.size(front_A)),
            tf.zeros_like(length_F, tf.bool),
            tf.zeros_like(front_A, tf.bool),
        ),
        shape_invariants=(vector,) * 5,
    )
    return taken_F, complete
