"""Ways from one vector to another.

Shape letters: see `docs/notation.md`.
"""

from keras import ops


def linear(start_BZ, end_BZ, fraction_B):
    """Returns start + fraction * (end - start), float32 [B, Z].

    Args:
        start_BZ: Where fraction 0 is.
        end_BZ: Where fraction 1 is.
        fraction_B: How far to go.

    >>> np.asarray(linear(np.zeros((1, 2)), np.array([[2.0, 4.0]]), np.array([0.25])))
    array([[0.5, 1. ]], dtype=float32)
    """
    start, end, fraction = _wide(start_BZ, end_BZ, fraction_B)
    return start + fraction[:, None] * (end - start)


def spherical(start_BZ, end_BZ, fraction_B):
    """Returns the point at a share of the angle between two vectors, float32 [B, Z].

    sin((1 - f) w) / sin(w) * start + sin(f w) / sin(w) * end, w the angle between
    them: of two vectors of one length, the way keeps that length. Draws of a standard
    normal of many dimensions have nearly one length, which a straight line leaves.
    Where the directions are equal, or opposite, or one is 0, it is the straight line.

    Args:
        start_BZ: As in `linear`.
        end_BZ: As in `linear`.
        fraction_B: As in `linear`.

    Source: Shoemake 1985, section 3.3, https://doi.org/10.1145/325334.325242; White
    2016, https://arxiv.org/abs/1609.04468 (between latents).

    >>> right, up = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])
    >>> np.asarray(spherical(right, up, np.array([0.5]))).round(4)
    array([[0.7071, 0.7071]], dtype=float32)
    """
    start, end, fraction = _wide(start_BZ, end_BZ, fraction_B)
    length = ops.norm(start, axis=-1) * ops.norm(end, axis=-1)
    has_angle = length > 0
    cosine = ops.sum(start * end, axis=-1) / ops.where(has_angle, length, 1.0)
    angle = ops.arccos(ops.clip(cosine, -1.0, 1.0))
    sine = ops.sin(angle)
    # Near 0 or pi the quotient of sines is only rounding.
    curved = ops.logical_and(has_angle, sine > 1e-3)
    safe = ops.where(curved, sine, 1.0)
    first = ops.where(curved, ops.sin((1 - fraction) * angle) / safe, 1 - fraction)
    second = ops.where(curved, ops.sin(fraction * angle) / safe, fraction)
    return first[:, None] * start + second[:, None] * end


def _wide(*tensors):
    return [ops.cast(tensor, "float32") for tensor in tensors]
