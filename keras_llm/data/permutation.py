"""A pseudo-random order of n rows, computed one index at a time.

No table is kept, so that a corpus of any size is shuffled as a whole and a
position in the order is one integer.
"""

import numpy as np

_ROUNDS = 6


def mix(x: np.ndarray) -> np.ndarray:
    """Returns a 64-bit hash of each element: the finaliser of SplitMix64.

    Source: Steele, Lea and Flood 2014, https://doi.org/10.1145/2714064.2660195.

    Args:
        x: uint64 array.

    >>> hex(mix(np.uint64([0x9E3779B97F4A7C15]))[0])
    '0xe220a8397b1dcdaf'
    """
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def fold(*parts: int) -> np.ndarray:
    """Returns one uint64 key, shape [1], that depends on every part and its place."""
    key = np.zeros(1, np.uint64)
    for part in parts:
        key = mix((key ^ np.uint64(part)) + np.uint64(0x9E3779B97F4A7C15))
    return key


def permute(index: np.ndarray, size: int, *key: int) -> np.ndarray:
    """Returns the images of `index` under a permutation of 0 .. size - 1.

    A Feistel network permutes the smallest power of four that holds `size`; an
    image outside is permuted again until it falls inside, which keeps the map
    one to one (Black and Rogaway 2002, https://doi.org/10.1007/3-540-45760-7_9).

    Args:
        index: int64 array of any shape, each from 0 to size - 1.
        size: Number of elements, at least 1 and below 2**62.
        *key: Integers from 0 to 2**63 - 1; another key is another permutation.

    >>> permute(np.arange(7), 7, 42)
    array([3, 2, 6, 0, 4, 5, 1])
    """
    half = np.uint64(max(1, ((size - 1).bit_length() + 1) // 2))
    mask = np.uint64(2 ** int(half) - 1)
    round_keys = [fold(*key, r) for r in range(_ROUNDS)]

    def feistel(x: np.ndarray) -> np.ndarray:
        left, right = x >> half, x & mask
        for round_key in round_keys:
            left, right = right, left ^ (mix(right ^ round_key) & mask)
        return (left << half) | right

    image = feistel(np.asarray(index, np.int64).astype(np.uint64).ravel())
    while (outside := np.flatnonzero(image >= np.uint64(size))).size:
        image[outside] = feistel(image[outside])
    return image.astype(np.int64).reshape(np.shape(index))


def uniform_below(index: np.ndarray, size: int, *key: int) -> np.ndarray:
    """Returns one independent uniform integer below `size` for each index.

    The bias is at most size / 2**64.

    Args:
        index: int64 array of counters.
        size: Number of values, at least 1.
        *key: Integers from 0 to 2**63 - 1.
    """
    counter = np.asarray(index, np.int64).astype(np.uint64)
    draw = mix(mix(counter + fold(*key).reshape((1,) * counter.ndim)))
    return (draw % np.uint64(size)).astype(np.int64)
