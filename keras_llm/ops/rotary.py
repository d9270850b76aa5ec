"""Rotary position embedding: pairs (i, i + F) of every head turn with position."""

import math

from keras import ops


def frequencies(head_size, base=10_000.0, scaling=None):
    """Returns the F = head_size / 2 angles of one position, in radians.

    angle[i] = base**(-i / F). With scaling, for texts longer than those of the first
    training, a pair that turns fewer than `low` times over the original length turns
    `factor` times slower, one that turns more than `high` times as before, and those
    between by a share in proportion.

    Args:
        head_size: H, even.
        base: Wavelengths run from 2 pi to 2 pi * base tokens.
        scaling: None, or (factor, low, high, original length in tokens).

    Source: Su et al. 2021, https://arxiv.org/abs/2104.09864; the scaling is that of
    Llama 3.1: Grattafiori et al. 2024, https://arxiv.org/abs/2407.21783.

    >>> frequencies(4, base=100.0)
    [1.0, 0.1]
    >>> frequencies(4, base=100.0, scaling=(8.0, 1.0, 4.0, 50))
    [1.0, 0.0125]
    """
    half = head_size // 2
    angles = [base ** (-i / half) for i in range(half)]
    if scaling is None:
        return angles
    factor, low, high, original = scaling
    turns = [original * angle / (2 * math.pi) for angle in angles]
    kept = [min(max((turn - low) / (high - low), 0.0), 1.0) for turn in turns]
    return [
        angle * (share + (1 - share) / factor)
        for angle, share in zip(angles, kept, strict=True)
    ]


def rotary_table(positions, head_size, base=10_000.0, scaling=None):
    """Returns the cosines and signed sines that `rotate` multiplies by.

    angle[p, i] = p * frequency[i], in float32 whatever the model computes in:
    bfloat16 cannot tell position 257 from 258.

    Args:
        positions: Int tensor [...], in tokens.
        head_size: H, even.
        base: As in `frequencies`.
        scaling: As in `frequencies`.

    Returns:
        Two float32 tensors [..., H]: (cos, cos) and (-sin, sin).

    Source: Su et al. 2021, eq. 34, https://arxiv.org/abs/2104.09864, with the
    pairing (i, i + F) that Llama's checkpoints use.

    >>> cosine, sine = rotary_table(np.array([0, 1]), head_size=2)
    >>> np.asarray(cosine).round(3)
    array([[1.  , 1.  ],
           [0.54, 0.54]], dtype=float32)
    """
    frequency_F = frequencies(head_size, base, scaling)
    frequency_F = ops.convert_to_tensor(frequency_F, "float32")
    angle = ops.cast(positions, "float32")[..., None] * frequency_F
    cosine, sine = ops.cos(angle), ops.sin(angle)
    return (
        ops.concatenate([cosine, cosine], axis=-1),
        ops.concatenate([-sine, sine], axis=-1),
    )


def rotate(x, table):
    """Rotates feature pair (i, i + F) of `x` by the table's angle.

    Args:
        x: Float tensor [..., H].
        table: The pair from `rotary_table`, broadcastable to `x`.

    Returns:
        Tensor like `x`.
    """
    cosine, sine = (ops.cast(part, x.dtype) for part in table)
    first, second = ops.split(x, 2, axis=-1)
    return x * cosine + ops.concatenate([second, first], axis=-1) * sine
