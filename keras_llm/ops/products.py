"""Products of a few rows with a large matrix, as they occur while decoding.

A processor reads a matrix of weights for a handful of rows about as fast as memory
allows only when the library underneath does not copy it into another order first.
Cut into panels of 64 columns, the matrix is in that order already.
"""

from keras import ops

from keras_llm.ops import few_nodes

PANEL = 64  # Columns of one panel; 32 and 128 were slower.
_ROWS_PER_PANEL = 64  # Of a table that is multiplied by its transpose.
FEW_ROWS = 32  # Up to here panels of a table beat one plain product.


def pack(kernel_DE):
    """Returns [P, D, 64]: the columns of a matrix in panels, the last one padded.

    >>> pack(np.ones((3, 130), "float32")).shape
    TensorShape([3, 3, 64])
    """
    width, columns = kernel_DE.shape
    panels = -(-columns // PANEL)
    padded = ops.pad(kernel_DE, [[0, 0], [0, panels * PANEL - columns]])
    return ops.transpose(ops.reshape(padded, (width, panels, PANEL)), (1, 0, 2))


def packed_product(x, packed_PDC, columns):
    """Returns x @ kernel for a kernel from `pack`.

    Args:
        x: Float tensor [..., D].
        packed_PDC: The panels.
        columns: E, the columns of the kernel.

    Returns:
        Tensor [..., E].

    >>> x, kernel = np.ones((2, 5, 3), "float32"), np.ones((3, 7), "float32")
    >>> packed_product(x, pack(kernel), 7).shape
    TensorShape([2, 5, 7])
    """
    panels, width, _ = packed_PDC.shape
    y_PMC = ops.matmul(ops.reshape(x, (1, -1, width)), packed_PDC)
    y_MPC = ops.transpose(y_PMC, (1, 0, 2))
    if columns % PANEL:
        y_MPC = ops.reshape(y_MPC, (-1, panels * PANEL))[:, :columns]
    return ops.reshape(y_MPC, (*few_nodes.outer_sizes(x), columns))


def transposed_product(x_BD, table_VD):
    """Returns x @ transpose(table) [B, V], reading the table in panels of 64 rows.

    For a few rows only: one row alone, and many, are faster by a plain product.
    """
    vocab, width = table_VD.shape
    rows = min(_ROWS_PER_PANEL, vocab)
    whole = vocab // rows * rows
    table_PRD = ops.reshape(table_VD[:whole], (-1, rows, width))
    y_PRB = ops.matmul(table_PRD, ops.transpose(x_BD)[None])
    y_VB = ops.reshape(y_PRB, (whole, -1))
    rest_VB = ops.matmul(table_VD[whole:], ops.transpose(x_BD))
    return ops.transpose(ops.concatenate([y_VB, rest_VB], axis=0))
