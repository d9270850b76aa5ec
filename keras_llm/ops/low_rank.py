"""A kernel and what a low-rank adapter makes of it."""

from keras import ops


def merged_kernel(kernel_DE, down_DR, up_RE, scale, magnitude_E=None):
    """Returns the one kernel that stands for a kernel and its adapter.

    W' = W + scale * down @ up; with a magnitude (DoRA) each column of W' is then
    brought to that length.

    Args:
        kernel_DE: W, float [D, E].
        down_DR: Float [D, R].
        up_RE: Float [R, E].
        scale: Factor on the product.
        magnitude_E: Float [E], or None to leave the lengths as they are.

    Source: Hu et al. 2021, section 4.1, https://arxiv.org/abs/2106.09685; Liu et al.
    2024, eq. 5, https://arxiv.org/abs/2402.09353.

    >>> merged_kernel(np.eye(2), np.ones((2, 1)), np.ones((1, 2)), 0.5).numpy().tolist()
    [[1.5, 0.5], [0.5, 1.5]]
    """
    merged = kernel_DE + scale * ops.matmul(down_DR, up_RE)
    if magnitude_E is None:
        return merged
    return merged * (magnitude_E / column_lengths(merged))


def column_lengths(kernel_DE):
    """Returns the Euclidean length [E] of each column.

    >>> column_lengths(np.array([[3.0, 0.0], [4.0, 2.0]])).numpy().tolist()
    [5.0, 2.0]
    """
    return ops.sqrt(ops.sum(ops.square(kernel_DE), axis=0))
