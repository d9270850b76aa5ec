"""Keras models whose `compile` says no to what `fit` would get wrong."""

import keras


@keras.saving.register_keras_serializable(package="keras_llm")
class Model(keras.Model):
    """A functional model that may be trained by `fit` where Keras trains it rightly.

    That is: on one device, without clipping. On the TensorFlow backend the gradient of
    an embedding holds a row for every token, equal tokens apart, and Keras clips it
    before they are summed; under several replicas it clips before the replicas are
    summed, and an uneven last batch is a mean of means. No error says so.

    Raises:
        ValueError: From `compile`, of such a choice.

    >>> x = keras.Input([3])
    >>> model = Model(x, keras.layers.Dense(2)(x))
    >>> model.compile(keras.optimizers.SGD(0.1, global_clipnorm=1.0), loss="mse")
    Traceback (most recent call last):
    ...
    ValueError: `fit` needs an optimizer that does not clip: on this backend Keras ...
    """

    def compile(self, optimizer="rmsprop", *args, **kwargs):
        """Configures `fit` as Keras does.

        Raises:
            ValueError: The optimizer clips, there are several replicas, or a
                `keras.distribution` is set, on the TensorFlow backend.
        """
        optimizer = keras.optimizers.get(optimizer)
        if keras.config.backend() == "tensorflow":
            _check_clipping(optimizer)
            _check_devices(self.distribute_strategy)
        super().compile(optimizer, *args, **kwargs)


def _check_clipping(optimizer):
    # Under mixed float16 Keras wraps what it was given.
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    for name in ("global_clipnorm", "clipnorm", "clipvalue"):
        value = getattr(optimizer, name, None)
        if value is not None:
            raise ValueError(
                "`fit` needs an optimizer that does not clip: on this backend Keras "
                "clips an embedding's gradient before equal tokens' rows are summed. "
                f"Received: {name}={value}. Leave it out, or clip with "
                "keras_llm.training.train (`train.clip_norm`), which sums first."
            )


def _check_devices(strategy):
    if strategy.num_replicas_in_sync > 1:
        raise ValueError(
            "`fit` needs one device: under several replicas Keras clips before it "
            "sums and takes the mean of unequal batches' means. Received: "
            f"{type(strategy).__name__} with {strategy.num_replicas_in_sync} replicas. "
            "Train with keras_llm.training.train, which is exact on any number."
        )
    if keras.distribution.distribution() is not None:
        raise ValueError(
            "`keras.distribution` must not be set on the TensorFlow backend, where "
            "it trains unsharded without a word. Received: "
            f"{keras.distribution.distribution()}. Use the JAX backend, or a "
            "strategy of tf.distribute with keras_llm.training.train."
        )
