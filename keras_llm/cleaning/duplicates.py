"""Documents that say what one before them said, word for word or nearly."""

import functools
import hashlib
import re
import zlib
from typing import Any

import numpy as np

# One Chinese, Japanese or Korean character is a word; so is a run of other letters.
_WORD = re.compile(r"[⺀-鿿가-힯豈-﫿]|[^\W⺀-鿿가-힯豈-﫿]+")

_SCHEME = "affine32"  # How datasketch permutes: said, since its default may change.


def digest(text: str) -> bytes:
    r"""Returns 16 bytes that tell a text from any other, but for white space.

    >>> digest("one  two\n") == digest("one two"), digest("one") == digest("two")
    (True, False)
    """
    return hashlib.blake2b(" ".join(text.split()).encode(), digest_size=16).digest()


def signature(text: str, shingle_words: int, num_permutations: int) -> np.ndarray:
    """Returns the MinHash of a text's words in a row, uint32 [num_permutations].

    Of two texts, the share of places at which theirs agree estimates the Jaccard
    similarity of their sets of `shingle_words` words in a row; its deviation is at most
    0.5 / sqrt(num_permutations). Case and punctuation do not count.

    Raises:
        ImportError: datasketch is not installed.

    Source: Broder 1997, https://doi.org/10.1109/SEQUEN.1997.666900.

    >>> a = signature("to be or not to be that is the question", 2, 64)
    >>> b = signature("To be, or not to be: that is the question.", 2, 64)
    >>> a.shape, bool((a == b).all())
    ((64,), True)
    """
    words = _WORD.findall(text.lower())
    count = max(1, len(words) - shingle_words + 1)
    shingles = {" ".join(words[i : i + shingle_words]) for i in range(count)}
    minhash = _empty(num_permutations).copy()
    minhash.update_batch([shingle.encode() for shingle in sorted(shingles)])
    return np.asarray(minhash.hashvalues, "uint32")


class NearDuplicates:
    """Remembers documents and says of each whether one before it is nearly the same.

    The candidates come from locality-sensitive hashing: documents that agree in a whole
    band of their signatures. Each is then compared. A pair of similarity s is a
    candidate with probability 1 - (1 - s^r)^b for b bands of r hashes; of 128 and a
    threshold of 0.8, b = 16 and r = 8: 95 % of pairs at the threshold, 99 % at 0.85.
    Memory is some KB for each document that is kept.

    Args:
        similarity: Estimated Jaccard similarity from which two are nearly the same.
        num_permutations: Length of the signatures.
    """

    def __init__(self, similarity: float, num_permutations: int):
        datasketch = _datasketch()
        self._similarity = similarity
        # Misses weigh more than candidates too many, which are compared anyway.
        self._bands = datasketch.MinHashLSH(
            similarity, num_permutations, weights=(0.05, 0.95)
        )
        self._minhash = datasketch.LeanMinHash
        self._kept: list[np.ndarray] = []

    def is_new(self, values: np.ndarray) -> bool:
        """Returns whether no earlier document is nearly the same; if so, keeps it."""
        minhash = self._minhash(seed=1, hashvalues=values, scheme=_SCHEME)
        for other in self._bands.query(minhash):
            if np.mean(self._kept[other] == values) >= self._similarity:
                return False
        self._bands.insert(len(self._kept), minhash)
        self._kept.append(values)
        return True


@functools.cache
def _empty(num_permutations: int) -> Any:
    """Returns a MinHash of no words; to draw its permutations takes long."""
    return _datasketch().MinHash(num_permutations, hashfunc=zlib.crc32, scheme=_SCHEME)


def _datasketch() -> Any:
    try:
        import datasketch
    except ImportError:
        raise ImportError(
            "Near duplicates are found by datasketch, which is not installed: pip "
            "install 'keras_llm[corpus]', or look for exact ones alone."
        ) from None
    return datasketch
