"""Rows of text with spans cut out, to be written back: T5's pre-training."""

from typing import TYPE_CHECKING

import numpy as np

from keras_llm.data.config import DataError
from keras_llm.data.permutation import uniform_below
from keras_llm.data.row_batches import Batch

if TYPE_CHECKING:
    from keras_llm.tokenizers import Tokenizer

# What is drawn, kept apart from each other and from the order of the rows.
_NOISE, _KEPT = 2**40 + 8, 2**40 + 9
_SCORES = 2**62


class SpanCorruption:
    """Replaces spans of a row by sentinels; the target holds the spans.

    `a b c d e f` with `b c` and `e` cut out becomes the source `a <0> d <1> f [end]`
    and the target `<0> b c <1> e [end]`. Of P ids round(rate * P) are cut out, in
    round(rate * P / mean_length) spans of random lengths, at random places; a row
    begins with ids that are kept.

    All chance is a function of the seed and the row's number: workers, resumed runs
    and `as_dataset()` agree, and a row seen again has another number.

    Args:
        tokenizer: With `sentinel_ids`, `<extra_id_0>` first.
        num_tokens: P, the ids of a row of text.
        rate: Share of the ids that is cut out, above 0 and below 1.
        mean_length: Mean ids of a span, at least 1.
        start_id: What the decoder reads first.
        seed: From 0.

    Attributes:
        source_length: S, ids of a source.
        target_length: T, ids of a target.

    Call arguments:
        batch: `token_ids` int32 [R, P] and `weights` float32 [R, P], as
            `TrainingBatches` gives them. A row that is not full, which the last of a
            text may be, counts for nothing.
        row_numbers: int64 [R].

    Returns:
        A batch of `source_ids` int32 [R, S], `source_lengths` int32 [R], `token_ids`
        int32 [R, T] (what the decoder reads), `targets` int32 [R, T] and `weights`
        float32 [R, T].

    Raises:
        ValueError: A rate or a length is out of range, or the tokenizer has too few
            sentinels for the spans.

    Source: Raffel et al. 2020, section 3.1.4, https://arxiv.org/abs/1910.10683.
    """

    def __init__(
        self,
        tokenizer: "Tokenizer",
        num_tokens: int,
        rate: float = 0.15,
        mean_length: float = 3.0,
        start_id: int = 0,
        seed: int = 0,
    ):
        self.num_noise, self.num_spans = spans(num_tokens, rate, mean_length)
        self.num_tokens, self.start_id, self.seed = num_tokens, start_id, seed
        self.end_id = tokenizer.special_ids["end"]
        sentinels = getattr(tokenizer, "sentinel_ids", ())
        if not len(sentinels) >= self.num_spans:
            raise ValueError(
                "The tokenizer must have a sentinel for every span of a row. Received: "
                f"{len(sentinels)} sentinels, {self.num_spans} spans in rows of "
                f"{num_tokens} ids. Make a SentencePiece tokenizer with `extra_ids`, "
                "or take shorter rows or longer spans."
            )
        self._sentinels = np.array(sentinels[: self.num_spans], np.int32)
        self.source_length = num_tokens - self.num_noise + self.num_spans + 1
        self.target_length = self.num_noise + self.num_spans + 1

    def __call__(self, batch: Batch, row_numbers: np.ndarray) -> Batch:
        """Returns the rows as sources and targets."""
        ids_RP, rows = batch["token_ids"], len(batch["token_ids"])
        is_noise = self._noise(row_numbers)
        before = np.pad(is_noise, [(0, 0), (1, 0)])[:, :-1]
        opens = np.logical_and(is_noise, ~before)
        # Each span's sentinel takes the place of its first id in the source; in the
        # target that id comes twice at first, and the sentinel takes the first.
        sentinels = np.tile(self._sentinels, rows)
        source = ids_RP.copy()
        source[opens] = sentinels
        source = source[np.logical_or(~is_noise, opens)].reshape(rows, -1)
        copies = is_noise.astype(np.int64) + opens
        target = np.repeat(ids_RP.ravel(), copies.ravel()).reshape(rows, -1)
        place = np.cumsum(copies, axis=1) - copies
        target[np.nonzero(opens)[0], place[opens]] = sentinels
        end = np.full((rows, 1), self.end_id, np.int32)
        target = np.concatenate([target, end], axis=1)
        read = np.full_like(target, self.start_id)
        read[:, 1:] = target[:, :-1]
        counts = batch["weights"].min(axis=1, keepdims=True) > 0
        return {
            "source_ids": np.concatenate([source, end], axis=1),
            "source_lengths": np.full(rows, self.source_length, np.int32),
            "token_ids": read,
            "targets": target,
            "weights": np.repeat(counts, self.target_length, axis=1).astype("float32"),
        }

    def _noise(self, row_numbers: np.ndarray) -> np.ndarray:
        """Returns which ids are cut out, bool [R, P]: kept and cut ones in turn."""
        kept_RK = self._parts(self.num_tokens - self.num_noise, _KEPT, row_numbers)
        noise_RK = self._parts(self.num_noise, _NOISE, row_numbers)
        lengths = np.stack([kept_RK, noise_RK], axis=2).ravel()
        turns = np.tile([False, True], len(row_numbers) * self.num_spans)
        return np.repeat(turns, lengths).reshape(len(row_numbers), -1)

    def _parts(self, total: int, key: int, row_numbers: np.ndarray) -> np.ndarray:
        """Returns `num_spans` positive lengths a row that sum to `total`, int64 [R, K].

        Of total - 1 places between ids, num_spans - 1 are drawn to cut at: each way of
        cutting is equally likely.
        """
        between = total - 1
        counters = row_numbers[:, None] * max(between, 1) + np.arange(between)
        scores = uniform_below(counters, _SCORES, self.seed, key)
        cuts = np.sort(np.argsort(scores, axis=1)[:, : self.num_spans - 1], axis=1) + 1
        edges = np.pad(cuts, [(0, 0), (1, 1)], constant_values=((0, 0), (0, total)))
        return np.diff(edges, axis=1)


def spans(num_tokens: int, rate: float, mean_length: float) -> tuple[int, int]:
    """Returns how many ids of a row are cut out, and in how many spans.

    >>> spans(568, 0.15, 3.0)
    (85, 28)
    """
    if not (0 < rate < 1 and mean_length >= 1):
        raise ValueError(
            "`rate` must be above 0 and below 1, `mean_length` at least 1. Received: "
            f"rate={rate}, mean_length={mean_length}."
        )
    if not num_tokens >= 2:
        raise ValueError(
            "A row must have an id to keep and one to cut out. Received: "
            f"{num_tokens} ids. Take longer rows."
        )
    noise = min(max(round(num_tokens * rate), 1), num_tokens - 1)
    count = max(round(noise / mean_length), 1)
    return noise, min(count, noise, num_tokens - noise)


def row_tokens(context: int, rate: float, mean_length: float) -> int:
    """Returns the most ids of text whose source fits into `context` ids.

    Raises:
        DataError: No row fits.

    >>> row_tokens(512, 0.15, 3.0)
    568
    """
    best = 0
    for num_tokens in range(2, 2 * context + 2):
        noise, count = spans(num_tokens, rate, mean_length)
        if num_tokens - noise + count + 1 <= context:
            best = num_tokens
    if not best:
        raise DataError(
            "`data.context` must hold the source of a row of two ids. Received: "
            f"data.context={context}. Set a larger one."
        )
    return best
