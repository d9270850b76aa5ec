"""Rows of text with some tokens masked, anew each time that a row is seen."""

from typing import TYPE_CHECKING, Any

import numpy as np

from keras_llm.data.permutation import uniform_below
from keras_llm.data.row_batches import Batch

if TYPE_CHECKING:
    from keras_llm.tokenizers import Tokenizer

FRAME = 2  # Ids around the text of a row: one before it, one behind it.

# What is drawn, kept apart from each other and from the order of the rows.
_WHICH, _HOW, _ID = 2**40, 2**40 + 1, 2**40 + 2
_SCORES = 2**62


class TokenMasking:
    """Frames rows of a token stream and masks a share of their tokens.

    A row of P ids of the stream becomes `[CLS] ids… [SEP]`, of T = P + 2 ids. Without
    those roles in the tokenizer the "end" id stands on both sides. Of a row with n
    ordinary tokens max(1, round(rate * n)) are masked, drawn without replacement; a
    special id never is. A masked token becomes the mask id (80 in 100), an ordinary
    id drawn at random (10), or stays what it was (10).

    With `whole_words` words are drawn in place of tokens: a word is masked in all its
    parts, or not at all. Those that no longer fit into the row's number are passed
    over, so that a few rows have less masked than they might. A token begins a word
    where its bytes begin with white space, as every WordPiece without `##` does, a
    punctuation mark and a Chinese character included. In byte-level BPE a comma
    belongs to the word before it, and text without spaces is one word.

    All chance is a function of the seed and the row's number: workers, resumed runs
    and `as_dataset()` agree, and a row seen again has another number.

    Args:
        tokenizer: With a special id for the role "mask".
        mask_rate: Share of tokens to mask, above 0 and below 1.
        seed: From 0.
        whole_words: Whether the parts of a word are masked together.
        mask_share: Of masked tokens, the share that becomes the mask id.
        random_share: The share that becomes a random id; the rest is kept.

    Call arguments:
        batch: `token_ids` int32 [R, P] and `weights` float32 [R, P], 1 where the
            place behind it is real, as `TrainingBatches` gives them. A row without a
            weight is padding.
        row_numbers: int64 [R].

    Returns:
        A batch, M = max(1, round(mask_rate * P)):

        | name | |
        |---|---|
        | `token_ids` int32 [R, T] | the text |
        | `masked_ids` int32 [R, T] | what the model reads |
        | `masked_positions` int32 [R, M] | where, rising; -1 fills up |
        | `lengths` int32 [R] | real ids of each row, the frame included; 0 of padding |
        | `weights` float32 [R, M] | 1 where a position is |

    Raises:
        ValueError: The tokenizer has no mask id, or a share is out of range.

    Source: Devlin et al. 2019, section 3.1, https://arxiv.org/abs/1810.04805.

    >>> from keras_llm import tokenizers
    >>> special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    >>> tokenizer = tokenizers.WordPieceTokenizer([*special, "the", "whale", "##s"])
    >>> masking = TokenMasking(tokenizer, mask_rate=0.4, mask_share=1.0, random_share=0)
    >>> rows = {"token_ids": np.array([[5, 6, 7, 5]]), "weights": np.ones((1, 4))}
    >>> masked = masking(rows, np.array([3]))
    >>> masked["masked_ids"]
    array([[2, 5, 4, 4, 5, 3]], dtype=int32)
    >>> masked["masked_positions"]
    array([[2, 3]], dtype=int32)
    """

    def __init__(
        self,
        tokenizer: "Tokenizer",
        mask_rate: float = 0.15,
        seed: int = 0,
        whole_words: bool = False,
        mask_share: float = 0.8,
        random_share: float = 0.1,
    ):
        check_mask_rate(mask_rate)
        # 0.7 + 0.2 + 0.1 is not 1 in binary.
        together = mask_share + random_share
        if not (mask_share >= 0 and random_share >= 0 and together <= 1 + 1e-9):
            raise ValueError(
                "`mask_share` and `random_share` are shares of the masked tokens, and "
                "1 together at most. Received: "
                f"mask_share={mask_share}, random_share={random_share}."
            )
        special = tokenizer.special_ids
        check_mask_id(tokenizer)
        self.mask_rate, self.seed = mask_rate, seed
        self.mask_share, self.random_share = mask_share, random_share
        self.mask_id, end = special["mask"], special["end"]
        self.before, self.behind = special.get("cls", end), special.get("sep", end)
        self.pad = special.get("pad", end)
        ordinary = np.ones(tokenizer.vocab_size, bool)
        ordinary[list(special.values())] = False
        self._is_ordinary, self._ordinary_ids = ordinary, np.flatnonzero(ordinary)
        self._continues = np.zeros(tokenizer.vocab_size, bool)
        if whole_words:
            self._continues[:] = continues_word(tokenizer)

    def __call__(self, batch: Batch, row_numbers: np.ndarray) -> Batch:
        """Returns the framed and masked rows."""
        ids_RP, num_real = batch["token_ids"], _real_ids(batch["weights"])
        num_places = ids_RP.shape[1]
        counter_RP = row_numbers[:, None] * num_places + np.arange(num_places)
        candidates_RP = self._is_ordinary[ids_RP]
        candidates_RP &= np.arange(num_places) < num_real[:, None]
        chosen_RP = self._choose(ids_RP, candidates_RP, counter_RP)
        places = np.where(chosen_RP, np.arange(num_places), num_places)
        places_RM = np.sort(places, axis=1)[
            :, : masked_number(self.mask_rate, num_places)
        ]
        is_masked = places_RM < num_places
        token_ids = self._frame(ids_RP, num_real)
        # Places that fill up point at the first id and change nothing there.
        positions = np.where(is_masked, places_RM + 1, 0)
        old = np.take_along_axis(token_ids, positions, axis=1)
        index = np.minimum(places_RM, num_places - 1)
        new = self._replace(old, np.take_along_axis(counter_RP, index, axis=1))
        masked_ids = token_ids.copy()
        rows = np.broadcast_to(np.arange(len(ids_RP))[:, None], positions.shape)
        masked_ids[rows[is_masked], positions[is_masked]] = new[is_masked]
        return {
            "token_ids": token_ids,
            "masked_ids": masked_ids,
            "masked_positions": np.where(is_masked, positions, -1).astype(np.int32),
            "lengths": np.where(num_real > 0, num_real + FRAME, 0).astype(np.int32),
            "weights": is_masked.astype(np.float32),
        }

    def _frame(self, ids_RP: np.ndarray, num_real: np.ndarray) -> np.ndarray:
        """Returns the rows between the ids that open and close them, [R, T]."""
        at = np.arange(ids_RP.shape[1] + FRAME)
        length = np.where(num_real > 0, num_real + FRAME, 0)[:, None]
        framed = np.pad(ids_RP, ((0, 0), (1, 1))).astype(np.int32)
        framed[:, 0] = self.before
        framed = np.where(at == length - 1, np.int32(self.behind), framed)
        return np.where(at < length, framed, np.int32(self.pad))

    def _choose(self, ids_RP, candidates_RP, counter_RP) -> np.ndarray:
        """Returns which places are masked, bool [R, P]: words in a random order."""
        number = candidates_RP.sum(axis=1)
        left = np.where(number > 0, masked_number(self.mask_rate, number), 0)
        goes_on = candidates_RP & self._continues[ids_RP]
        goes_on[:, 1:] &= candidates_RP[:, :-1]
        goes_on[:, 0] = False
        word_RP = _words(candidates_RP, goes_on)
        sizes = _word_sizes(word_RP, candidates_RP)
        # Where no word is short enough, as in a text without spaces: token by token.
        fits = ((sizes > 0) & (sizes <= left[:, None])).sum(axis=1) > 0
        if not fits[number > 0].all():
            goes_on &= fits[:, None]
            word_RP = _words(candidates_RP, goes_on)
            sizes = _word_sizes(word_RP, candidates_RP)
        opens = candidates_RP & ~goes_on
        scores = uniform_below(counter_RP, _SCORES, self.seed, _WHICH)
        order = np.argsort(np.where(opens, scores, _SCORES), axis=1, kind="stable")
        sizes = np.take_along_axis(sizes, order, axis=1)
        taken = np.zeros_like(candidates_RP)
        for k in range(opens.sum(axis=1).max(initial=0)):
            if not left.any():
                break
            taken[:, k] = (sizes[:, k] > 0) & (sizes[:, k] <= left)
            left -= np.where(taken[:, k], sizes[:, k], 0)
        words = np.zeros_like(taken)
        np.put_along_axis(words, order, taken, axis=1)
        return candidates_RP & np.take_along_axis(words, word_RP, axis=1)

    def _replace(self, old_RM: np.ndarray, counter_RM: np.ndarray) -> np.ndarray:
        """Returns what stands in the text in place of masked tokens, int32 [R, M]."""
        share = uniform_below(counter_RM, 2**53, self.seed, _HOW) * 2.0**-53
        drawn = uniform_below(counter_RM, len(self._ordinary_ids), self.seed, _ID)
        is_random = share < self.mask_share + self.random_share
        new = np.where(is_random, self._ordinary_ids[drawn], old_RM)
        return np.where(share < self.mask_share, self.mask_id, new).astype(np.int32)


def masked_number(mask_rate: float, number: Any) -> Any:
    """Returns max(1, round(mask_rate * number)), halves up, int64 like `number`."""
    return np.maximum(1, np.floor(mask_rate * number + 0.5)).astype(np.int64)


def continues_word(tokenizer: "Tokenizer") -> np.ndarray:
    """Returns for each id whether it goes on with the word before it, bool [V].

    >>> from keras_llm import tokenizers
    >>> special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    >>> pieces = tokenizers.WordPieceTokenizer([*special, "whale", "##s", "!"])
    >>> continues_word(pieces)[5:]
    array([False,  True, False])
    """
    return np.array([not token[:1].isspace() for token in tokenizer.token_bytes])


def check_mask_rate(mask_rate: float) -> None:
    """Raises ValueError unless 0 < `mask_rate` < 1."""
    if not 0 < mask_rate < 1:
        raise ValueError(
            "`mask_rate` must be above 0 and below 1: it is the share of tokens that "
            f"are masked. Received: mask_rate={mask_rate}."
        )


def check_mask_id(tokenizer: "Tokenizer") -> None:
    """Raises ValueError unless a tokenizer has an id that masks."""
    if "mask" not in tokenizer.special_ids:
        raise ValueError(
            'Masking needs a tokenizer with a special id for the role "mask". '
            f"Received: a tokenizer of kind {tokenizer.kind!r} with the roles "
            f"{', '.join(sorted(tokenizer.special_ids))}. Train one with "
            "tokenizer.kind='wordpiece' or with tokenizer.mask=True, or give one that "
            "has it."
        )


def _real_ids(weights_RP: np.ndarray) -> np.ndarray:
    """Returns how many ids from the front of each row are real, int64 [R].

    A weight says that the next id is real, so the last id of a text counts too.
    """
    number = (weights_RP > 0).sum(axis=1)
    return np.where(number > 0, np.minimum(number + 1, weights_RP.shape[1]), 0)


def _words(candidates_RP: np.ndarray, goes_on: np.ndarray) -> np.ndarray:
    """Returns each place's word, named by the place that opens it, int64 [R, P]."""
    place = np.arange(goes_on.shape[1])
    return np.maximum.accumulate(np.where(candidates_RP & ~goes_on, place, 0), axis=1)


def _word_sizes(word_RP: np.ndarray, candidates_RP: np.ndarray) -> np.ndarray:
    """Returns at the place that opens a word how many tokens it has, else 0."""
    rows, places = word_RP.shape
    flat = (word_RP + np.arange(rows)[:, None] * places)[candidates_RP]
    return np.bincount(flat, minlength=rows * places).reshape(rows, places)
