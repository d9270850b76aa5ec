"""Counter-based random numbers: the same key and counter, the same number.

A number depends on nothing else: not on the batch, the device, the backend or the
numbers drawn before it.
"""

import math

from keras import ops

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA


def threefry_2x32(key, counter):
    """Encrypts a 64-bit counter under a 64-bit key: Threefry-2x32, 20 rounds.

    Args:
        key: Pair of uint32 tensors of one shape (or broadcastable).
        counter: Pair of uint32 tensors of one shape (or broadcastable).

    Returns:
        Pair of uint32 tensors: 64 bits that pass as random.

    Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3",
    https://doi.org/10.1145/2063384.2063405.

    >>> zero = np.zeros([], "uint32")
    >>> a, b = threefry_2x32((zero, zero), (zero, zero))
    >>> hex(int(a)), hex(int(b))
    ('0x6b200159', '0x99ba4efe')
    """
    key_0, key_1 = (ops.convert_to_tensor(word, "uint32") for word in key)
    x_0, x_1 = (ops.convert_to_tensor(word, "uint32") for word in counter)
    parity = ops.convert_to_tensor(_PARITY, "uint32")
    keys = (key_0, key_1, ops.bitwise_xor(ops.bitwise_xor(key_0, key_1), parity))
    x_0, x_1 = x_0 + keys[0], x_1 + keys[1]
    for group in range(5):
        for distance in _ROTATIONS[group % 2]:
            x_0 = x_0 + x_1
            x_1 = ops.bitwise_xor(_rotate_left(x_1, distance), x_0)
        injected = ops.convert_to_tensor(group + 1, "uint32")
        x_0 = x_0 + keys[(group + 1) % 3]
        x_1 = x_1 + keys[(group + 2) % 3] + injected
    return x_0, x_1


def uniform(seed, step):
    """Returns one number in [0, 1) per seed and step.

    The number is the upper 23 bits of Threefry-2x32 with the key (seed, 0) and the
    counter (step, 0), divided by 2**23.

    Args:
        seed: Int32 [B].
        step: Int32 [B] or scalar, from 0.

    Returns:
        Float32 [B], at most 1 - 2**-23.

    >>> np.asarray(uniform(np.array([1, 1, 2]), 0))
    array([0.7039436, 0.7039436, 0.6196419], dtype=float32)
    """
    seed = ops.cast(ops.convert_to_tensor(seed), "uint32")
    step = ops.cast(ops.convert_to_tensor(step), "uint32")
    zero = ops.zeros_like(seed)
    bits, _ = threefry_2x32((seed, zero), (step + zero, zero))
    # 23 bits, so that u * total < total holds in float32 for every total.
    high = ops.cast(ops.bitwise_right_shift(bits, _shift(9)), "float32")
    return high * 2.0**-23


def normal(seed, size):
    """Returns `size` standard normal numbers for each seed.

    By Box and Muller: number i is sqrt(-2 ln(1 - u)) cos(2 pi v), u and v the upper
    23 bits of the two words that Threefry-2x32 gives with the key (seed, 0) and the
    counter (i, 1), each divided by 2**23. So none lies beyond 5.65, and none is of
    the numbers that `uniform` draws for the same seed.

    Args:
        seed: Int32 [B].
        size: Z, an int.

    Returns:
        Float32 [B, Z].

    Source: Box and Muller 1958, https://doi.org/10.1214/aoms/1177706645.

    >>> np.asarray(normal(np.array([1, 2]), 3)).round(3)
    array([[-0.328,  0.109,  0.376],
           [ 0.097,  0.976, -0.054]], dtype=float32)
    """
    seed_B1 = ops.cast(ops.convert_to_tensor(seed), "uint32")[:, None]
    # TensorFlow has no range of uint32 outside of XLA.
    place_1Z = ops.cast(ops.arange(size, dtype="int32"), "uint32")[None]
    place_BZ = place_1Z + ops.zeros_like(seed_B1)
    key = (seed_B1 + ops.zeros_like(place_BZ), ops.zeros_like(place_BZ))
    words = threefry_2x32(key, (place_BZ, ops.ones_like(place_BZ)))
    u, v = (
        ops.cast(ops.bitwise_right_shift(word, _shift(9)), "float32") * 2.0**-23
        for word in words
    )
    return ops.sqrt(-2.0 * ops.log(1.0 - u)) * ops.cos(2.0 * math.pi * v)


def _rotate_left(x, distance):
    return ops.bitwise_or(
        ops.bitwise_left_shift(x, _shift(distance)),
        ops.bitwise_right_shift(x, _shift(32 - distance)),
    )


def _shift(distance):
    return ops.convert_to_tensor(distance, "uint32")
