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
rank below r says "wait"; in the same way to the right. (At the nearest boundary on
the left even left(...) = r is no answer: the same pair may form there and, standing
further left, goes first.) A walk ends where no token is long enough to reach. The
nearest `_REACH` boundaries are looked at for all candidates at once; what is open then
is rare. In a run of equal pairs (aaaa) every other pair is merged, counted from the
left, as soon as both ends of the run are safe.

A pair merged early must not bring up what is merged earlier still: its token may only
be used by merges of higher rank. So it is in every list in training order. In one that
was made from the ranks of tokens, with every way to make each, some merges are "late",
behind one that uses their token; such a pair is merged when it is its word's first, and
no sooner. The result is exactly BPE's. The number of rounds is about the depth of the
deepest token's merge tree, whatever the length of the word: 4 to 25 with GPT-2's
vocabulary, where rank by rank it was up to 5,600; late merges take one round each.

U units (tokens so far, with separators), C candidates (pairs that have a rank and no
neighbour of a lower one), X open sides of candidates.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf

from keras_llm.tokenizers.pair_table import NO_RANK, PairTable

_REACH = 3  # 2 leaves more sides open, 4 hardly fewer.
_SIDES = np.concatenate(
    [-np.arange(1, _REACH + 1), np.arange(1, _REACH + 1)], dtype=np.int32
)[:, np.newaxis]
_IS_RIGHT = (_SIDES > 0).astype(np.int32)
# The same pair may yet form at the nearest boundary on the left, and would go first.
_LEFT_WINS_TIES = (_SIDES == -1).astype(np.int32)
_WEIGHTS = (2 ** (_REACH - abs(_SIDES))).astype(np.int32)


class MergeRules(tf.Module):
    """The ranked merges of a vocabulary as constant tensors.

    Args:
        merges: (left id, right id, merged id) in the order of rank.
        vocab_size: Number of ids; `vocab_size` itself stands for a separator.

    Raises:
        ValueError: A merge is listed twice.
    """

    def __init__(self, merges: Sequence[tuple[int, int, int]], vocab_size: int):
        super().__init__(name="merge_rules")
        _check_repeats(merges)
        self.separator = vocab_size
        pairs, ranks = _ranks_of_pairs(merges)
        self._table = PairTable(pairs, ranks[:, 0], vocab_size)
        limits = np.full((self._table.num_slots, 2), NO_RANK, np.int32)
        limits[self._table.slots] = ranks[:, 1:]
        merged = np.array([merge[2] for merge in merges] or [0])
        self._longest = _longest_token(merges)
        late = _late_merges(merges)
        self._has_late = bool(late.any())
        with tf.init_scope(), tf.device("CPU:0"):
            self._limits = tf.constant(limits.reshape(-1))  # Left and right, by slot.
            self._merged = tf.constant(merged, tf.int32)
            self._late = tf.constant(late)  # By rank.

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
            lambda units, slots, ranks, pairs: tf.size(pairs) > 0,
            self._round,
            state,
            shape_invariants=(tf.TensorShape([None]),) * 4,
        )
        return state[0][_REACH:-_REACH]

    def _candidates(self, units_U: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """Returns every pair's slot and rank, and which pairs may be safe.

        A pair with a neighbour of lower rank is not safe; all others with a rank are
        candidates.
        """
        slots, ranks = self._table.find(units_U[:-1], units_U[1:])
        around = tf.minimum(tf.minimum(ranks[:-2], ranks[2:]), NO_RANK - 1)
        return slots, ranks, _where(ranks[1:-1] <= around) + 1

    def _round(self, units_U, slots, ranks, pairs_C):
        """Merges every pair that is safe, then looks the new pairs up."""
        chosen_C = self._choose(slots, ranks, pairs_C)
        if self._has_late:
            chosen_C = self._hold_late(units_U, ranks, pairs_C, chosen_C)
        at = tf.boolean_mask(pairs_C, chosen_C)
        merged = tf.gather(self._merged, tf.gather(ranks, at))
        units_U = tf.tensor_scatter_nd_update(units_U, at[:, tf.newaxis], merged)
        kept = tf.tensor_scatter_nd_update(
            tf.ones_like(units_U, tf.bool),
            at[:, tf.newaxis] + 1,
            tf.zeros_like(at, tf.bool),
        )
        units_U = tf.gather(units_U, _where(kept))
        return (units_U, *self._candidates(units_U))

    def _choose(self, slots, ranks, pairs_C: tf.Tensor) -> tf.Tensor:
        """Returns bool [C]: which candidates can merge in this round."""
        own_C = tf.gather(ranks, pairs_C)
        around = pairs_C + _SIDES  # [2 * _REACH, C]
        near = tf.gather(ranks, around)
        limit = tf.gather(self._limits, 2 * tf.gather(slots, around) + _IS_RIGHT)
        # The nearest answer outweighs all those beyond it.
        closed = limit >= own_C + _LEFT_WINS_TIES
        answer = tf.cast(closed, tf.int32) - tf.cast(near < own_C, tf.int32)
        score = tf.reduce_sum(tf.reshape(answer * _WEIGHTS, [2, _REACH, -1]), axis=1)
        lowest_C = own_C == tf.reduce_min(own_C)
        repeats = tf.stack([near[0], near[_REACH]]) == own_C  # [2, C]
        safe = self._look_further(
            (slots, ranks, pairs_C, own_C),
            tf.where((score == 0) & ~repeats & ~lowest_C),
            (score > 0) | lowest_C,
        )
        return tf.cond(
            tf.reduce_any(repeats[0]),
            lambda: _alternate(pairs_C, safe, repeats),
            lambda: safe[0] & safe[1],
        )

    def _hold_late(self, units_U, ranks, pairs_C, chosen_C):
        """Takes late merges out of those chosen, but for the first of its word."""
        own_C = tf.gather(ranks, pairs_C)
        late_C = tf.gather(self._late, own_C)

        def held():
            words = tf.cumsum(tf.cast(units_U == self.separator, tf.int32))
            word_C = tf.gather(words, pairs_C)
            lowest = tf.math.unsorted_segment_min(own_C, word_C, words[-1] + 1)
            is_lowest_C = own_C == tf.gather(lowest, word_C)
            place_C = tf.where(is_lowest_C, pairs_C, tf.size(units_U))
            first = tf.math.unsorted_segment_min(place_C, word_C, words[-1] + 1)
            is_first_C = pairs_C == tf.gather(first, word_C)
            return (chosen_C & ~late_C) | (late_C & is_first_C)

        return tf.cond(tf.reduce_any(late_C), held, lambda: chosen_C)

    def _look_further(self, pairs, cells_X2, safe):
        """Walks on from the open sides of pairs; returns which sides are safe.

        Args:
            pairs: Slots [U - 1], ranks [U - 1], candidates [C] and their ranks [C].
            cells_X2: The open sides: (0 for left or 1 for right, candidate).
            safe: bool [2, C], what is known already.
        """
        slots, ranks, pairs_C, own_C = pairs

        def step(distance, cells_X2, safe):
            side = tf.cast(cells_X2[:, 0], tf.int32)
            at = tf.gather(pairs_C, cells_X2[:, 1]) + (2 * side - 1) * distance
            own = tf.gather(own_C, cells_X2[:, 1])
            limit = tf.gather(self._limits, 2 * tf.gather(slots, at) + side)
            closed = limit >= own
            safe = _mark(safe, tf.boolean_mask(cells_X2, closed))
            still_open = ~closed & (tf.gather(ranks, at) >= own)
            return distance + 1, tf.boolean_mask(cells_X2, still_open), safe

        _, cells_X2, safe = tf.while_loop(
            lambda distance, cells_X2, _: (
                (tf.size(cells_X2) > 0) & (distance < self._longest)
            ),
            step,
            (_REACH + 1, cells_X2, safe),
            shape_invariants=(
                tf.TensorShape([]),
                tf.TensorShape([None, 2]),
                tf.TensorShape([2, None]),
            ),
        )
        # No token is long enough to reach from there.
        return _mark(safe, cells_X2)


def _mark(safe: tf.Tensor, cells_X2: tf.Tensor) -> tf.Tensor:
    count = tf.shape(cells_X2)[:1]
    return tf.tensor_scatter_nd_update(safe, cells_X2, tf.fill(count, True))


def _alternate(pairs_C, safe, repeats):
    """Picks every other pair of each run of equal pairs, if both its ends are safe."""
    # An end that is no candidate has a lower neighbour: the run is not safe.
    headless_C = repeats[0] & (pairs_C - 1 != tf.roll(pairs_C, 1, 0))
    tailless_C = repeats[1] & (pairs_C + 1 != tf.roll(pairs_C, -1, 0))
    starts_C = ~repeats[0] | headless_C
    run_C = tf.cumsum(tf.cast(starts_C, tf.int32)) - 1
    first_C = tf.gather(_where(starts_C), run_C)
    last_C = tf.gather(_where(~repeats[1] | tailless_C), run_C)
    even_C = tf.bitwise.bitwise_and(pairs_C - tf.gather(pairs_C, first_C), 1) == 0
    left_C = tf.gather(safe[0] & ~headless_C, first_C)
    right_C = tf.gather(safe[1] & ~tailless_C, last_C)
    return left_C & right_C & even_C


def _where(mask: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.where(mask)[:, 0], tf.int32)


def _check_repeats(merges: Sequence[tuple[int, int, int]]) -> None:
    seen: dict[tuple[int, int], int] = {}
    for rank, (first, second, _) in enumerate(merges):
        if (first, second) in seen:
            raise ValueError(
                "Every merge must be listed once. Received: merge "
                f"{rank} repeats merge {seen[first, second]}."
            )
        seen[first, second] = rank


def _late_merges(merges: Sequence[tuple[int, int, int]]) -> np.ndarray:
    """Returns bool by rank: is the token that a merge makes used before it?"""
    first_use: dict[int, int] = {}
    for rank, (first, second, _) in enumerate(merges):
        first_use.setdefault(first, rank)
        first_use.setdefault(second, rank)
    late = [first_use.get(made, rank) < rank for rank, (*_, made) in enumerate(merges)]
    return np.array(late or [False])


def _longest_token(merges: Sequence[tuple[int, int, int]]) -> int:
    """Returns the length of the longest token in bytes."""
    length: dict[int, int] = {}
    for first, second, merged in merges:
        length[merged] = length.get(first, 1) + length.get(second, 1)
    return max(length.values(), default=1)


def _ranks_of_pairs(
    merges: Sequence[tuple[int, int, int]],
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the pairs that matter, [n, 2], and their rank, left and right [n, 3]."""
    made_of: dict[int, list[tuple[int, int]]] = {}
    for first, second, merged in merges:
        made_of.setdefault(merged, []).append((first, second))
    ranks: dict[tuple[int, int], list[int]] = {}

    def lower(pair: tuple[int, int], column: int, rank: int) -> None:
        known = ranks.setdefault(pair, [NO_RANK] * 3)
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
    pending, seen = [token], {token}
    while pending:
        token = pending.pop()
        yield token
        parts = {parts[side] for parts in made_of.get(token, ())} - seen
        seen |= parts
        pending.extend(parts)
