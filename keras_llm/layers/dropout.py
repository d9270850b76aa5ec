"""Dropout whose mask differs from replica to replica."""

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import Any

import keras
from keras import ops

from keras_llm.ops.replica import replica_id

# Any large odd number keeps the replicas' seeds apart from those of later steps.
_STRIDE = 1_000_003


_tape: contextvars.ContextVar["SeedTape | None"] = contextvars.ContextVar(
    "seed_tape", default=None
)


class SeedTape:
    """The seeds that some layers draw, so that a second pass draws the same.

    >>> tape, seed = SeedTape(), ReplicaSeed(7)
    >>> with tape.playing():
    ...     first = seed.next()
    >>> with tape.playing():
    ...     again = seed.next()
    >>> np.array_equal(first, again), np.array_equal(seed.next(), again)
    (True, False)
    """

    def __init__(self):
        self._seeds: list[Any] = []
        self._drawn = 0

    @contextlib.contextmanager
    def playing(self) -> Iterator[None]:
        """Draws from the tape's beginning; what it does not hold yet is added."""
        self._drawn = 0
        token = _tape.set(self)
        try:
            yield
        finally:
            _tape.reset(token)

    def next(self, draw: Callable[[], Any]) -> Any:
        """Returns the next seed, by `draw` where the tape ends."""
        if self._drawn == len(self._seeds):
            self._seeds.append(draw())
        self._drawn += 1
        return self._seeds[self._drawn - 1]


class ReplicaSeed(keras.random.SeedGenerator):
    """A seed generator whose draws depend on the replica as well.

    Each replica holds the same state and counts the same steps; without the fold
    every replica would drop the same places of its own rows.
    """

    def next(self, ordered=True):
        """Returns the next seed [2] of this replica."""
        tape = _tape.get()
        return self._draw(ordered) if tape is None else tape.next(self._draw)

    def _draw(self, ordered=True):
        seed = super().next(ordered)
        fold = ops.cast(replica_id(), seed.dtype) * _STRIDE
        return seed + ops.stack([fold, ops.zeros_like(fold)])


@keras.saving.register_keras_serializable(package="keras_llm")
class Dropout(keras.layers.Layer):
    """Sets a random share of the values to 0 while training.

    y = x * kept / (1 - rate), kept ~ Bernoulli(1 - rate). Under
    `tf.distribute` every replica draws a mask of its own; the same seed gives the
    same run.

    Args:
        rate: Share of values set to 0, from 0 up to but not including 1.
        seed: Int; None draws one from Keras' global seed.

    Call arguments:
        x: Float tensor of any shape.
        training: Whether to drop; False passes `x` through.

    Returns:
        Tensor like `x`.

    Raises:
        ValueError: `rate` is outside [0, 1).

    Source: Srivastava et al. 2014, section 4, JMLR 15(56).

    >>> y = np.asarray(Dropout(0.5, seed=1)(np.ones((1, 8)), training=True))
    >>> sorted(set(y.ravel().tolist()))
    [0.0, 2.0]
    """

    def __init__(self, rate, seed=None, **kwargs):
        super().__init__(**kwargs)
        if not 0 <= rate < 1:
            raise ValueError(
                "`rate` must be at least 0 and below 1: it is the share of values "
                f"that are dropped. Received: rate={rate}."
            )
        self.rate = rate
        self.seed = seed
        self.supports_masking = True
        if rate > 0:
            self.seed_generator = ReplicaSeed(seed)
        self.built = True

    def call(self, x, training=False):
        """Returns a tensor like `x`."""
        if not training or self.rate == 0:
            return x
        return keras.random.dropout(x, self.rate, seed=self.seed_generator)

    def get_config(self):
        """Returns the constructor's arguments."""
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}
