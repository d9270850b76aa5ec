"""AdamW for the training loop: one fused pass over each weight."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tensorflow as tf

from keras_llm.training.config import TrainConfig

Fuse = Callable[[Callable], Callable]
# Below it a weight does not count as small: one that starts at zero must move.
_LEAST_SIZE = 1e-3


@dataclasses.dataclass(frozen=True)
class Update:
    """What one step applies to every weight, as scalar tensors.

    Attributes:
        learning_rate: In units of the weights.
        scale: Factor on the gradients: 1 / tokens, times the clipping factor.
        accepted: Bool; False leaves every bit as it was.
        moves: One bool for each weight, likewise for it alone; None: all move.
    """

    learning_rate: tf.Tensor
    scale: tf.Tensor
    accepted: tf.Tensor
    moves: Sequence[tf.Tensor | bool] | None = None


class AdamW:
    """Adam with weight decay kept apart from the gradient's moments.

    With g the scaled gradient and t the number of accepted updates, this one
    included:

        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        w = w - rate * (decay * w + (m / (1 - beta1**t))
                        / (sqrt(v / (1 - beta2**t)) + epsilon))
        average = ema * average + (1 - ema) * w      (where asked for)

    With `config.relative_rate` the rate of each weight is `rate * max(RMS(w), 1e-3)`,
    RMS the root of its mean square: a step changes it by a share of its own size.
    T5's first weights differ in size by a factor of 80 from table to query and are
    meant for such steps. Decay keeps the plain rate.

    Decay holds back matrices only: norms, biases and other vectors (fewer than two
    axes) keep theirs. Scaling, clipping, the average and the refusal of a step with
    NaN in it are part of the same pass over memory, which is what costs time here.
    t counts the steps that a weight sat out too: up to its tenth update its moves are
    then smaller than they would be, to less than half at the first.

    Args:
        variables: Keras variables to train. Make the optimizer in the strategy
            scope that they were made in.
        config: Gives the coefficients.

    Attributes:
        updates: int64 variable, the number of accepted updates.
        slots: Variables by kind, one per weight: "first_moment", "second_moment"
            and, where the config asks for it, "average".

    Source: Loshchilov and Hutter 2019, algorithm 2, https://arxiv.org/abs/1711.05101;
    Shazeer and Stern 2018, section 8 (relative rates),
    https://arxiv.org/abs/1804.04235.

    >>> import keras
    >>> weight = keras.Variable(np.ones((2, 2), "float32"))
    >>> optimizer = AdamW([weight], TrainConfig(weight_decay=0.5))
    >>> update = Update(tf.constant(0.1), tf.constant(1.0), tf.constant(True))
    >>> optimizer.apply(tf.distribute.get_strategy(), [tf.ones((2, 2))], update)
    >>> round(float(weight[0, 0]), 4)  # 1 - 0.1 * (0.5 * 1 + 1 / 1)
    0.85
    """

    def __init__(self, variables: Sequence[Any], config: TrainConfig):
        self.variables = list(variables)
        self.config = config
        self.updates = tf.Variable(0, dtype=tf.int64, trainable=False)
        zeros = functools.partial(_like, initial=tf.zeros_like)
        self.slots: dict[str, list[tf.Variable]] = {
            "first_moment": [zeros(variable) for variable in self.variables],
            "second_moment": [zeros(variable) for variable in self.variables],
        }
        if config.ema_decay is not None:
            self.slots["average"] = [
                _like(variable, tf.identity) for variable in self.variables
            ]

    def apply(
        self,
        strategy: tf.distribute.Strategy,
        gradients: Sequence[Any],
        update: Update,
        fuse: Fuse | None = None,
    ) -> None:
        """Updates every weight and slot, on every replica's own copy.

        Args:
            strategy: Called in its cross-replica context.
            gradients: Dense, one per weight, equal on all replicas.
            update: The step's scalars, likewise.
            fuse: Compiles the formula, such as `tf.function(jit_compile=True)`;
                None leaves it as it is.
        """
        scalars = self._scalars(update)
        formulas = {
            decays: (fuse or _as_it_is)(self._formula(decays))
            for decays in (True, False)
        }
        moves = update.moves or [True] * len(self.variables)
        for i, variable in enumerate(self.variables):
            formula = formulas[is_decayed(variable)]
            strategy.extended.update(
                variable.value,
                functools.partial(_assign, formula),
                args=(
                    gradients[i],
                    [*scalars, tf.convert_to_tensor(moves[i])],
                    *(slot[i] for slot in self.slots.values()),
                ),
                group=False,
            )
        strategy.extended.update(
            self.updates,
            lambda updates, accepted: updates.assign_add(tf.cast(accepted, tf.int64)),
            args=(update.accepted,),
            group=False,
        )

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Puts the averaged weights in place for the time of the block.

        Without an average it changes nothing. Called outside of any replica.
        """
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for variable, average in zip(
            self.variables, self.slots.get("average", []), strict=False
        ):
            current = tf.identity(variable.value.read_value())
            variable.value.assign(average.read_value())
            average.assign(current)

    def _scalars(self, update: Update) -> list[Any]:
        """Returns the step's scalars with the moments' corrections worked in."""
        t = tf.cast(self.updates.read_value() + 1, tf.float32)
        first = 1.0 - tf.pow(self.config.beta1, t)
        second = 1.0 - tf.pow(self.config.beta2, t)
        rate = update.learning_rate
        return [
            rate,
            rate / first,
            tf.math.rsqrt(second),
            update.scale,
            update.accepted,
        ]

    def _formula(self, decays: bool) -> Callable[..., list[tf.Tensor]]:
        config = self.config

        def formula(gradient, scalars, weight, first, second, *average):
            rate, first_rate, root, scale, accepted, moves = scalars
            g = gradient * scale
            new_first = first + (1.0 - config.beta1) * (g - first)
            new_second = second + (1.0 - config.beta2) * (g * g - second)
            step = first_rate * new_first
            if config.relative_rate:
                size = tf.sqrt(tf.reduce_mean(tf.square(weight)))
                step *= tf.maximum(size, _LEAST_SIZE)
            new = weight - step / (tf.sqrt(new_second) * root + config.epsilon)
            if decays and config.weight_decay:
                new = new - rate * config.weight_decay * weight
            results = [new, new_first, new_second]
            olds = [weight, first, second, *average]
            if average:
                kept = config.ema_decay
                results.append(kept * average[0] + (1.0 - kept) * new)
            pairs = zip(results, olds, strict=True)
            taken = accepted & moves
            return [tf.where(taken, result, old) for result, old in pairs]

        return formula


def is_decayed(variable: Any) -> bool:
    """Returns whether weight decay applies: to matrices, not to vectors."""
    return len(variable.shape) >= 2


def _like(variable: Any, initial: Callable[[tf.Tensor], tf.Tensor]) -> tf.Variable:
    return tf.Variable(initial(variable.value.read_value()), trainable=False)


def _assign(formula, weight, gradient, scalars, *slots):
    """Runs on one replica: its copies, not the distributed ones."""
    olds = [variable.read_value() for variable in (weight, *slots)]
    news = formula(gradient, scalars, *olds)
    for variable, new in zip((weight, *slots), news, strict=True):
        variable.assign(new)


def _as_it_is(function):
    return function
