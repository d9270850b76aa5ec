"""Word dropout: what the decoder reads is made unreliable."""

import keras
from keras import ops

from keras_llm.core import checks
from keras_llm.layers.dropout import ReplicaSeed


@keras.saving.register_keras_serializable(package="keras_llm")
class WordDropout(keras.layers.Layer):
    """Replaces a random share of token ids by one id while training.

    A decoder that cannot trust the words before learns to ask the latent instead.
    The first id of a row, which starts it, is kept. Under `tf.distribute` every
    replica replaces other places.

    Args:
        rate: Share of ids replaced, from 0 up to but not including 1.
        unknown_id: The id that stands for what is not told.
        seed: Int; None draws one from Keras' global seed.

    Call arguments:
        token_ids: Int tensor [B, T].
        training: Whether to replace; False passes `token_ids` through.

    Returns:
        Int tensor like `token_ids`.

    Raises:
        ValueError: `rate` is outside [0, 1), or `unknown_id` negative.

    Source: Bowman et al. 2016, section 3.1, https://arxiv.org/abs/1511.06349.

    >>> ids = np.arange(1, 9)[None]
    >>> np.asarray(WordDropout(0.5, unknown_id=0, seed=1)(ids)).tolist()
    [[1, 2, 3, 4, 5, 6, 7, 8]]
    """

    def __init__(self, rate, unknown_id, seed=None, **kwargs):
        super().__init__(**kwargs)
        if not 0 <= rate < 1:
            raise ValueError(
                "`rate` must be at least 0 and below 1: it is the share of ids that "
                f"are replaced. Received: rate={rate}."
            )
        checks.check_not_negative("unknown_id", unknown_id)
        self.rate = rate
        self.unknown_id = unknown_id
        self.seed = seed
        self.supports_masking = True
        if rate > 0:
            self.seed_generator = ReplicaSeed(seed)
        self.built = True

    def call(self, token_ids, training=False):
        """Returns ids [B, T]."""
        if not training or self.rate == 0:
            return token_ids
        numbers = keras.random.uniform(
            ops.shape(token_ids), dtype="float32", seed=self.seed_generator
        )
        is_first = ops.arange(ops.shape(token_ids)[1], dtype="int32") == 0
        dropped = ops.logical_and(numbers < self.rate, ops.logical_not(is_first))
        unknown = ops.cast(self.unknown_id, token_ids.dtype)
        return ops.where(dropped, unknown, token_ids)

    def get_config(self):
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "rate": self.rate,
            "unknown_id": self.unknown_id,
            "seed": self.seed,
        }
