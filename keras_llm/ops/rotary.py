"""Rotary position embedding: pairs (i, i + F) of every head turn with position."""

from keras import ops


def rotary_table(positions, head_size, base=10_000.0):
    """Returns the cosines and signed sines that `rotate` multiplies by.

    angle[p, i] = p * base**(-i / F) for i < F = head_size / 2, in float32 whatever
    the model computes in: bfloat16 cannot tell position 257 from 258.

    Args:
        positions: Int tensor [...], in tokens.
        head_size: H, even.
        base: Wavelengths run from 2 pi to 2 pi * base tokens.

    Returns:
        Two float32 tensors [..., H]: (cos, cos) and (-sin, sin).

    Source: Su et al. 2021, eq. 34, https://arxiv.org/abs/2104.09864, with the
    pairing (i, i + F) that Llama's checkpoints use.

    >>> cosine, sine = rotary_table(np.array([0, 1]), head_size=2)
    >>> np.asarray(cosine).round(3)
    array([[1.  , 1.  ],
           [0.54, 0.54]], dtype=float32)
    """
    half = head_size // 2
    frequency_F = [base ** (-i / half) for i in range(half)]
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
