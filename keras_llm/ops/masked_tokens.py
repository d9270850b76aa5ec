"""Picking masked positions out of rows, putting tokens back, and the losses there.

M is the number of masked positions that a row has room for. A row with fewer fills
its `positions` up with -1: such a place picks, puts and costs nothing.
"""

import keras
from keras import ops

from keras_llm.ops import losses, masks


def take(x_BTD, positions_BM):
    """Returns the vectors at the given positions, [B, M, D]; at -1 the first one.

    A head that scores every id need so run over the masked tokens alone.

    Args:
        x_BTD: Float tensor.
        positions_BM: Int tensor, each below T, or -1.

    >>> x = np.array([[[1.0], [2.0], [3.0]]])
    >>> np.asarray(take(x, np.array([[2, -1]])))[0, :, 0]
    array([3., 1.])
    """
    index_BM1 = ops.maximum(ops.cast(positions_BM, "int32"), 0)[..., None]
    return ops.take_along_axis(x_BTD, index_BM1, axis=1)


def put(token_ids_BT, positions_BM, new_ids_BM):
    """Returns the ids [B, T] with those at the given positions replaced.

    Args:
        token_ids_BT: Int32 tensor.
        positions_BM: Int tensor, each below T and once a row, or -1.
        new_ids_BM: Int32 tensor.

    >>> ids = put(np.array([[5, 6, 7]]), np.array([[2, -1]]), np.array([[9, 8]]))
    >>> np.asarray(ids).tolist()
    [[5, 6, 9]]
    """
    time_BT = ops.cumsum(ops.ones_like(token_ids_BT), axis=1) - 1
    hit_BMT = ops.equal(ops.cast(positions_BM, "int32")[..., None], time_BT[:, None])
    new_BMT = ops.where(hit_BMT, new_ids_BM[..., None], 0)
    new_BT = ops.cast(ops.sum(new_BMT, axis=1), token_ids_BT.dtype)
    return ops.where(ops.any(hit_BMT, axis=1), new_BT, token_ids_BT)


def masked_token_loss(logits_BMV, token_ids_BT, positions_BM, label_smoothing=0.0):
    """Returns the cross-entropy of the masked tokens: its sum, and their number.

    Sums, so that micro-batches and replicas of unlike size add up; the mean is their
    quotient.

    Args:
        logits_BMV: Float tensor, the head's output at `positions_BM`.
        token_ids_BT: Int tensor, the ids before masking.
        positions_BM: Int tensor, each below T, or -1.
        label_smoothing: As in `losses.token_losses`.

    Returns:
        Two float32 scalars: nats, and the masked tokens.

    Source: Devlin et al. 2019, section 3.1, https://arxiv.org/abs/1810.04805.

    >>> total, count = masked_token_loss(
    ...     np.zeros((1, 2, 4), "float32"), np.array([[3, 1, 2]]), np.array([[1, -1]])
    ... )
    >>> round(float(total), 4), float(count)
    (1.3863, 1.0)
    """
    targets_BM = take(token_ids_BT[..., None], positions_BM)[..., 0]
    each_BM = losses.token_losses(logits_BMV, targets_BM, label_smoothing)
    real_BM = ops.cast(ops.greater_equal(positions_BM, 0), "float32")
    return ops.sum(ops.cast(each_BM, "float32") * real_BM), ops.sum(real_BM)


def num_correct(logits_BMV, token_ids_BT, positions_BM):
    """Returns how many masked tokens have the highest logit; a float32 scalar.

    Args:
        logits_BMV: Float tensor, the head's output at `positions_BM`.
        token_ids_BT: Int tensor, the ids before masking.
        positions_BM: Int tensor, each below T, or -1.

    >>> logits = np.array([[[0.0, 2.0, 1.0], [0.0, 2.0, 1.0]]], "float32")
    >>> float(num_correct(logits, np.array([[0, 1]]), np.array([[1, -1]])))
    1.0
    """
    targets_BM = take(token_ids_BT[..., None], positions_BM)[..., 0]
    likeliest_BM = ops.cast(ops.argmax(logits_BMV, axis=-1), "int32")
    hit_BM = ops.equal(likeliest_BM, ops.cast(targets_BM, "int32"))
    real_BM = ops.greater_equal(positions_BM, 0)
    return ops.sum(ops.cast(ops.logical_and(hit_BM, real_BM), "float32"))


def replaced_token_loss(logits_BT, token_ids_BT, corrupted_ids_BT, lengths_B):
    """Returns the loss of telling replaced tokens: its sum, and the real tokens.

    loss = softplus(z) - r z, the cross-entropy of sigmoid(z) against r, which is 1
    where the corrupted id differs from the original. A replacement that happens to
    be the original counts as not replaced.

    Args:
        logits_BT: Float tensor z; positive says "replaced".
        token_ids_BT: Int tensor, the original ids.
        corrupted_ids_BT: Int tensor, what the discriminator read.
        lengths_B: Int tensor, the real tokens of each row.

    Returns:
        Two float32 scalars: nats, and the real tokens, masked or not.

    Source: Clark et al. 2020, section 2, https://arxiv.org/abs/2003.10555.

    >>> total, count = replaced_token_loss(
    ...     np.array([[0.0, -9.0]], "float32"), [[5, 6]], [[7, 6]], np.array([1])
    ... )
    >>> round(float(total), 4), float(count)
    (0.6931, 1.0)
    """
    losses_B = replaced_token_losses(
        logits_BT, token_ids_BT, corrupted_ids_BT, lengths_B
    )
    real_BT = masks.real_tokens(lengths_B, ops.shape(logits_BT)[1])
    return ops.sum(losses_B), ops.sum(ops.cast(real_BT, "float32"))


def replaced_token_losses(logits_BT, token_ids_BT, corrupted_ids_BT, lengths_B):
    """Returns each row's sum of the losses in `replaced_token_loss`, float32 [B].

    Args:
        logits_BT: Float tensor; positive says "replaced".
        token_ids_BT: Int tensor, the original ids.
        corrupted_ids_BT: Int tensor, what the discriminator read.
        lengths_B: Int tensor, the real tokens of each row.

    >>> logits = np.zeros((2, 3), "float32")
    >>> ids = np.array([[5, 6, 7], [5, 6, 7]])
    >>> np.asarray(replaced_token_losses(logits, ids, ids, np.array([1, 3]))).round(4)
    array([0.6931, 2.0794], dtype=float32)
    """
    logits = ops.cast(logits_BT, keras.backend.result_type(logits_BT.dtype, "float32"))
    replaced = ops.cast(ops.not_equal(token_ids_BT, corrupted_ids_BT), logits.dtype)
    each_BT = ops.softplus(logits) - replaced * logits
    real_BT = masks.real_tokens(lengths_B, ops.shape(logits)[1])
    real_BT = ops.cast(real_BT, "float32")
    return ops.sum(ops.cast(each_BT, "float32") * real_BT, axis=-1)
