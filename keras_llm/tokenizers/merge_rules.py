"""Byte-level BPE's merges, applied to all words of a batch at once.

BPE merges the adjacent pair of lowest rank first, leftmost first among equals. Done
one rank after another, a long word takes thousands of rounds. But a pair may be
merged at once, whatever goes on elsewhere, when neither of its two units can be
taken by a neighbour at a lower rank. That is decided from a few neighbours:

For adjacent units (a, b) let `left(a, b)` be the lowest rank of any merge (x, b)
where x is a or a token that merging can grow from a towards the left, and
`right(a, b)` the lowest rank of any merge (a, y) where y is b or grows from b
towards the right. While a pair of rank r waits, only ranks below r are merged. The
unit before it can take its left unit only if left(...) < r there, and then either
those two have themselves a rank below r, or the unit before must first grow towards
the left, which is the same question one unit further. So, walking outwards from the
pair, the first boundary with left(...) >= r says "safe" and the first pair with a
rank below r says "wait"; in the same way to the right. After `_REACH` boundaries
without an answer the pair waits too, unless it has the lowest rank of all, so every
round makes progress. A run of equal pairs (aaaa) merges every other pair, counted
from the run's left end.

The result is exactly BPE's as long as a merge only uses tokens that earlier merges
make, which holds for every list in training order and is checked. The number of
rounds is about the depth of the deepest token's merge tree, whatever the length of
the word: 4 to 25 with GPT-2's vocabulary, where rank by rank it was up to 5,600.

U units (tokens so far, with separators), C candidates (pairs that have a rank).
"""

from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf

from keras_llm.tokenizers.packing import displace

_REACH = 3  # Boundaries looked at on each side. 2 takes more rounds, 4 hardly fewer.
_NO_RANK = np.iinfo(np.int32).max


class MergeRules(tf.Module):
    """The ranked merges of a vocabulary as constant tensors.

    Args:
        merges: (left id, right id, merged id) in the order of rank.
        vocab_size: Number of ids; `vocab_size` itself stands for a separator.

    Raises:
        ValueError: A merge is listed twice, or uses a token that a later merge makes.
    """

    def __init__(self, merges: Sequence[tuple[int, int, int]], vocab_size: int):
        super().__init__(name="merge_rules")
        _check_order(merges)
        self.separator = vocab_size
        pairs, ranks = _ranks_of_pairs(merges)
        first, second = pairs[:, 0], pairs[:, 1]
        # Units that start many pairs get several buckets, told apart by the second
        # unit's low bits, so that every bucket is small and easy to place.
        count = np.bincount(first, minlength=vocab_size + 1)
        split = np.array([1 << max(0, int(n - 1) // 4).bit_length() for n in count])
        # Bucket 0 is for units that start no pair; no slot belongs to it.
        base = np.where(count > 0, 1 + np.cumsum(split) - split, 0)
        mask = np.where(count > 0, split - 1, 0)
        bucket = base[first] + (second & mask[first])
        shift, num_slots = displace(bucket, second, 1 + int(split.sum()))
        num_slots = max(num_slots, int(shift.max()) + vocab_size + 1)
        slot = shift[bucket] + second
        owner = np.full(num_slots + 1, -1, np.int32)
        owner[slot] = bucket
        slot_ranks = np.full((num_slots + 1, 3), _NO_RANK, np.int32)
        slot_ranks[slot] = ranks
        merged = np.array([m[2] for m in merges] or [0])
        self._nothing = num_slots  # The slot of every pair that is not in the table.
        with tf.init_scope(), tf.device("CPU:0"):
            self._base = tf.constant(base, tf.int32)
            self._mask = tf.constant(mask, tf.int32)
            self._shift = tf.constant(shift, tf.int32)
            self._owner = tf.constant(owner)
            self._rank = tf.constant(slot_ranks[:, 0])
            self._ranks = tf.constant(slot_ranks)  # Rank, left and right.
            self._merged = tf.constant(merged, tf.int32)

    def apply(self, units_U: tf.Tensor) -> tf.Tensor:
        """Merges until nothing merges any more.

        Args:
            units_U: int32 ids with a separator before, between and after the words.

        Returns:
            int32 ids, fewer or as many, with the same separators.
        """
        margin = tf.fill([_REACH], self.separator)
        units = tf.concat([margin, units_U, margin], axis=0)
        state = (units, *self._candidates(units))
        state = tf.while_loop(
            lambda units, slots, pairs: tf.size(pairs) > 0,
            self._round,
            state,
            shape_invariants=(tf.TensorShape([None]),) * 3,
        )
        return state[0][_REACH:-_REACH]

    def _candidates(self, units_U: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the table slot of every pair, and which pairs have a rank."""
        first, second = units_U[:-1], units_U[1:]
        bucket = tf.gather(self._base, first) + tf.bitwise.bitwise_and(
            second, tf.gather(self._mask, first)
        )
        slots = tf.gather(self._shift, bucket) + second
        known = tf.gather(self._owner, slots) == bucket
        slots = tf.where(known, slots, self._nothing)
        return slots, _where(tf.gather(self._rank, slots) != _NO_RANK)

    def _round(self, units_U, slots, pairs_C):
        """Merges every pair that is safe, then looks the new pairs up."""
        at = tf.boolean_mask(pairs_C, self._choose(slots, pairs_C))
        rank = tf.gather(self._rank, tf.gather(slots, at))
        units_U = tf.tensor_scatter_nd_update(
            units_U, at[:, tf.newaxis], tf.gather(self._merged, rank)
        )
        kept = tf.tensor_scatter_nd_update(
            tf.ones_like(units_U, tf.bool),
            at[:, tf.newaxis] + 1,
            tf.zeros_like(at, tf.bool),
        )
        units_U = tf.gather(units_U, _where(kept))
        return (units_U, *self._candidates(units_U))

    def _choose(self, slots: tf.Tensor, pairs_C: tf.Tensor) -> tf.Tensor:
        """Returns bool [C]: which pairs can merge in this round."""
        sides = tf.concat([-np.arange(1, _REACH + 1), np.arange(1, _REACH + 1)], 0)
        around = tf.gather(slots, pairs_C[:, tf.newaxis] + tf.cast(sides, tf.int32))
        ranks = tf.gather(self._ranks, around)  # [C, 2 * _REACH, 3]
        own_C = tf.gather(self._rank, tf.gather(slots, pairs_C))
        threshold = own_C[:, tf.newaxis]
        is_left = np.arange(2 * _REACH) < _REACH
        limit = tf.where(is_left, ranks[:, :, 1], ranks[:, :, 2])
        # The nearest answer outweighs all those beyond it.
        weight = 2 ** np.tile(np.arange(_REACH)[::-1], 2)
        answer = tf.cast(limit >= threshold, tf.int32) - tf.cast(
            ranks[:, :, 0] < threshold, tf.int32
        )
        safe = tf.reduce_sum(tf.reshape(answer * weight, [-1, 2, _REACH]), 2) > 0
        lowest = own_C == tf.reduce_min(own_C)
        left_C, right_C = safe[:, 0] | lowest, safe[:, 1] | lowest
        repeats_C = ranks[:, 0, 0] == own_C
        return tf.cond(
            tf.reduce_any(repeats_C),
            lambda: right_C & _alternate(pairs_C, left_C, repeats_C),
            lambda: right_C & left_C,
        )


def _alternate(pairs_C, left_C, repeats_C):
    """Picks every other pair of each run of equal pairs, if its left end is safe."""
    first_of_run = _where(~repeats_C)
    run_C = tf.cumsum(tf.cast(~repeats_C, tf.int32)) - 1
    first_C = tf.gather(first_of_run, run_C)
    distance_C = pairs_C - tf.gather(pairs_C, first_C)
    return tf.gather(left_C, first_C) & (tf.bitwise.bitwise_and(distance_C, 1) == 0)


def _where(mask: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.where(mask)[:, 0], tf.int32)


def _check_order(merges: Sequence[tuple[int, int, int]]) -> None:
    last_made = {merged: rank for rank, (_, _, merged) in enumerate(merges)}
    seen: dict[tuple[int, int], int] = {}
    for rank, (first, second, _) in enumerate(merges):
        if (first, second) in seen:
            raise ValueError(
                "Every merge must be listed once. Received: merge "
                f"{rank} repeats merge {seen[first, second]}."
            )
        seen[first, second] = rank
        for part in (first, second):
            if not last_made.get(part, -1) < rank:
                raise ValueError(
                    "Merges must stand in training order, each made of bytes or of "
                    f"tokens that earlier merges make. Received: merge {rank} uses "
                    f"token {part}, which merge {last_made[part]} makes."
                )


def _ranks_of_pairs(
    merges: Sequence[tuple[int, int, int]],
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the pairs that matter, [n, 2], and their rank, left and right [n, 3]."""
    made_of: dict[int, list[tuple[int, int]]] = {}
    for first, second, merged in merges:
        made_of.setdefault(merged, []).append((first, second))
    ranks: dict[tuple[int, int], list[int]] = {}

    def lower(pair: tuple[int, int], column: int, rank: int) -> None:
        known = ranks.setdefault(pair, [_NO_RANK] * 3)
        known[column] = min(known[column], rank)

    for rank, (first, second, _) in enumerate(merges):
        lower((first, second), 0, rank)
        for last_part in _spine(first, 1, made_of):
            lower((last_part, second), 1, rank)
        for first_part in _spine(second, 0, made_of):
            lower((first, first_part), 2, rank)
    pairs = np.array(list(ranks), np.int64).reshape(-1, 2)
    return pairs, np.array(list(ranks.values()), np.int32).reshape(-1, 3)


def _spine(
    token: int, side: int, made_of: dict[int, list[tuple[int, int]]]
) -> Iterator[int]:
    """Yields the token and all that merging grows it from on one side."""
    pending = [token]
    while pending:
        token = pending.pop()
        yield token
        pending.extend(parts[side] for parts in made_of.get(token, ()))
