"""Positions told to attention as numbers added to its scores."""

import keras
import numpy as np
from keras import ops

from keras_llm.core import checks


class _PositionBias(keras.layers.Layer):
    """Owner of the call; a subclass gives the bias of each distance."""

    def __init__(self, num_heads, **kwargs):
        super().__init__(**kwargs)
        checks.check_positive("num_heads", num_heads)
        self.num_heads = num_heads

    def call(self, positions, key_positions=None):
        """Returns float32 [B or 1, N, T, C]."""
        if key_positions is None:
            key_positions = positions
        keys_B1C = ops.cast(key_positions, "int32")[:, None, :]
        distance_BTC = keys_B1C - ops.cast(positions, "int32")[:, :, None]
        return self._of_distance(distance_BTC)

    def get_config(self):
        """Returns the constructor's arguments."""
        return {**super().get_config(), "num_heads": self.num_heads}


@keras.saving.register_keras_serializable(package="keras_llm")
class RelativePositionBias(_PositionBias):
    """A learned number per head and bucket of distances between query and key.

    bias[n, t, c] = embeddings[bucket(c - t), n]. Half of the buckets hold one exact
    distance each, from 0 up; the others hold ranges that grow geometrically up to
    `max_distance`, and the last also all that is farther. With `bidirectional` half
    of all buckets are for keys after the query (of these the first is never used:
    none of them is at distance 0); without, such keys count as distance 0.

    Args:
        num_heads: N.
        num_buckets: At least 2; with `bidirectional` even and at least 4.
        max_distance: In tokens; greater than the number of exact distances.
        bidirectional: Whether keys after the query are told apart.
        embeddings_initializer: Of the table [num_buckets, N].

    Call arguments:
        positions: Int [B or 1, T], of the queries.
        key_positions: Int [B or 1, C]; None for those of the queries.

    Returns:
        Float32 [B or 1, N, T, C], the `bias` of attention once a mask is added.

    Raises:
        ValueError: Sizes that do not fit.

    Source: Raffel et al. 2020, section 2.1, https://arxiv.org/abs/1910.10683.

    >>> bias = RelativePositionBias(2, num_buckets=4, max_distance=4)
    >>> bias(np.array([[0, 1, 2, 3, 4]])).shape
    TensorShape([1, 2, 5, 5])
    """

    def __init__(
        self,
        num_heads,
        num_buckets=32,
        max_distance=128,
        bidirectional=True,
        embeddings_initializer="normal",
        **kwargs,
    ):
        super().__init__(num_heads, **kwargs)
        check_buckets(num_buckets, max_distance, bidirectional)
        self.num_buckets = num_buckets
        self.max_distance = max_distance
        self.bidirectional = bidirectional
        self.embeddings_initializer = keras.initializers.get(embeddings_initializer)
        self._bucket_of_distance = _buckets(num_buckets, max_distance, bidirectional)

    def build(self, positions_shape, key_positions_shape=None):
        """Makes `embeddings` [num_buckets, N]."""
        # Kept out of autocasting: scores are float32.
        self.embeddings = self.add_weight(
            name="embeddings",
            shape=(self.num_buckets, self.num_heads),
            initializer=self.embeddings_initializer,
            autocast=False,
        )

    def _of_distance(self, distance_BTC):
        # One row per distance, from the farthest before the query to the farthest
        # after it; then a single look-up per pair of positions.
        table = ops.take(self.embeddings, self._bucket_of_distance, axis=0)
        row_BTC = self.max_distance + ops.clip(
            distance_BTC, -self.max_distance, self.max_distance
        )
        bias_BTCN = ops.take(ops.cast(table, "float32"), row_BTC, axis=0)
        return ops.transpose(bias_BTCN, (0, 3, 1, 2))

    def get_config(self):
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "num_buckets": self.num_buckets,
            "max_distance": self.max_distance,
            "bidirectional": self.bidirectional,
            "embeddings_initializer": keras.initializers.serialize(
                self.embeddings_initializer
            ),
        }


@keras.saving.register_keras_serializable(package="keras_llm")
class ALiBi(_PositionBias):
    """A penalty that grows linearly with distance, at another slope in each head.

    bias[n, t, c] = -slope[n] |c - t|, slope[n] = 2^(-8 (n + 1) / N) for n from 0.
    Where N is no power of two, the slopes are those of the next lower power P,
    followed by every other one of 2 P, as in the authors' code. Nothing is learned.

    Args:
        num_heads: N.

    Call arguments:
        positions: Int [B or 1, T], of the queries.
        key_positions: Int [B or 1, C]; None for those of the queries.

    Returns:
        Float32 [B or 1, N, T, C], the `bias` of attention once a mask is added.

    Raises:
        ValueError: `num_heads` is not positive.

    Source: Press et al. 2022, section 3, https://arxiv.org/abs/2108.12409.

    >>> -np.asarray(ALiBi(2)(np.array([[0, 1, 2]])))[0, 0]
    array([[0.    , 0.0625, 0.125 ],
           [0.0625, 0.    , 0.0625],
           [0.125 , 0.0625, 0.    ]], dtype=float32)
    """

    def build(self, positions_shape, key_positions_shape=None):
        """Makes nothing."""

    def _of_distance(self, distance_BTC):
        slopes = ops.reshape(_slopes(self.num_heads), (1, -1, 1, 1))
        return -slopes * ops.cast(ops.abs(distance_BTC), "float32")[:, None]


def check_buckets(num_buckets, max_distance, bidirectional):
    """Raises ValueError unless distances can be sorted into these buckets."""
    sides = 2 if bidirectional else 1
    exact = num_buckets // sides // 2
    if num_buckets % sides or not exact >= 1:
        raise ValueError(
            f"`num_buckets` must be at least {2 * sides}, and even with "
            "`bidirectional`: each direction has an exact distance and a range. "
            f"Received: num_buckets={num_buckets}, bidirectional={bidirectional}."
        )
    if not max_distance > exact:
        raise ValueError(
            "`max_distance` must be greater than the number of distances that have "
            f"a bucket of their own. Received: max_distance={max_distance}, "
            f"num_buckets={num_buckets}, which gives {exact} of those."
        )


def _buckets(num_buckets, max_distance, bidirectional):
    """Returns int32 [2 max_distance + 1]: the bucket of each distance c - t."""
    one_side = num_buckets // 2 if bidirectional else num_buckets
    exact = one_side // 2
    rest = one_side - exact

    def bucket(distance):
        if distance < exact:
            return distance
        # The greatest j with exact * (max_distance / exact)^(j / rest) <= distance,
        # in integers: a rounded logarithm could miss a range's first distance.
        j = 0
        while j + 1 < rest and (
            distance**rest * exact ** (j + 1) >= max_distance ** (j + 1) * exact**rest
        ):
            j += 1
        return exact + j

    before = [bucket(distance) for distance in range(max_distance + 1)]
    after = [one_side + b for b in before[1:]] if bidirectional else [0] * max_distance
    return np.array([*reversed(before), *after], "int32")


def _slopes(num_heads):
    """Returns float32 [N]."""
    power = 2 ** (num_heads.bit_length() - 1)
    slopes = [2 ** (-8 * (n + 1) / power) for n in range(power)]
    between = [2 ** (-4 * (n + 1) / power) for n in range(0, 2 * power, 2)]
    return np.array((slopes + between)[:num_heads], "float32")
