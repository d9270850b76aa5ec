"""The optimizer of the training loop: one fused pass over each weight."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tensorflow as tf

from keras_llm.training.config import TrainConfig
from keras_llm.training.parameter_groups import settings
from keras_llm.training.update_rules import update_rule

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


class Optimizer:
    """Moves weights by a rule, with decay kept apart from the gradient's moments.

    With g the scaled gradient and `step` the rule's (`update_rules`):

        w = w - step - rate * decay * w
        average = ema * average + (1 - ema) * w      (where asked for)

    With `config.relative_rate` the step of each weight is times `max(RMS(w), 1e-3)`,
    RMS the root of its mean square: it changes by a share of its own size. T5's first
    weights differ in size by a factor of 80 from table to query and are meant for such
    steps. Decay keeps the plain rate.

    Decay holds back matrices only, unless a group says otherwise: norms, biases and
    other vectors (fewer than two axes) keep theirs. Scaling, clipping, the average and
    the refusal of a step with NaN in it are part of the same pass over memory, which is
    what costs time here. The rule's count of updates goes on for a weight that sits a
    step out: up to its tenth update Adam's moves are then smaller than they would be,
    to less than half at the first.

    Args:
        variables: Keras variables to train. Make the optimizer in the strategy
            scope that they were made in.
        config: Gives the rule, its coefficients and the groups of weights.

    Attributes:
        updates: int64 variable, the number of accepted updates.
        slots: Variables by kind, one per weight or None where it has no such slot:
            the rule's and, where the config asks for it, "average".

    Raises:
        ValueError: A group of the config names no weight.

    Source: Loshchilov and Hutter 2019, algorithm 2 (decay),
    https://arxiv.org/abs/1711.05101; Shazeer and Stern 2018, section 8 (relative
    rates), https://arxiv.org/abs/1804.04235.

    >>> import keras
    >>> weight = keras.Variable(np.ones((2, 2), "float32"))
    >>> optimizer = Optimizer([weight], TrainConfig(weight_decay=0.5))
    >>> update = Update(tf.constant(0.1), tf.constant(1.0), tf.constant(True))
    >>> optimizer.apply(tf.distribute.get_strategy(), [tf.ones((2, 2))], update)
    >>> round(float(weight[0, 0]), 4)  # 1 - 0.1 * (0.5 * 1 + 1 / 1)
    0.85
    """

    def __init__(self, variables: Sequence[Any], config: TrainConfig):
        self.variables = list(variables)
        self.config = config
        self.rule = update_rule(config)
        self.settings = settings(self.variables, config)
        self.updates = tf.Variable(0, dtype=tf.int64, trainable=False)
        values = [variable.value.read_value() for variable in self.variables]
        firsts = [self.rule.slots(value) for value in values]
        kinds = dict.fromkeys(kind for first in firsts for kind in first)
        if config.ema_decay is not None:
            # The last of a weight's slots, whatever its rule's are.
            kinds["average"] = None
            for first, value in zip(firsts, values, strict=True):
                first["average"] = tf.identity(value)
        self.slots: dict[str, list[tf.Variable | None]] = {
            kind: [
                tf.Variable(first[kind], trainable=False) if kind in first else None
                for first in firsts
            ]
            for kind in kinds
        }

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
        formulas = {
            decay: (fuse or _as_it_is)(self._formula(decay))
            for decay in {each.weight_decay for each in self.settings}
        }
        scalars = {
            factor: self._scalars(update, factor)
            for factor in {each.rate for each in self.settings}
        }
        moves = update.moves or [True] * len(self.variables)
        for i, variable in enumerate(self.variables):
            own = [slot[i] for slot in self.slots.values() if slot[i] is not None]
            strategy.extended.update(
                variable.value,
                functools.partial(_assign, formulas[self.settings[i].weight_decay]),
                args=(
                    gradients[i],
                    [*scalars[self.settings[i].rate], tf.convert_to_tensor(moves[i])],
                    *own,
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
            assert average is not None  # Every weight has one, or none has.
            current = tf.identity(variable.value.read_value())
            variable.value.assign(average.read_value())
            average.assign(current)

    def _scalars(self, update: Update, factor: float) -> list[Any]:
        """Returns the step's scalars for weights whose rate has a factor."""
        t = tf.cast(self.updates.read_value() + 1, tf.float32)
        rate = update.learning_rate
        if factor != 1.0:
            rate = rate * factor
        return [self.rule.scalars(rate, t), rate, update.scale, update.accepted]

    def _formula(self, decay: float) -> Callable[..., list[tf.Tensor]]:
        config, rule = self.config, self.rule
        averages = config.ema_decay is not None

        def formula(gradient, scalars, weight, *slots):
            shared, rate, scale, accepted, moves = scalars
            own = slots[:-1] if averages else slots
            step, new_slots = rule.step(gradient * scale, own, shared)
            if config.relative_rate:
                size = tf.sqrt(tf.reduce_mean(tf.square(weight)))
                step *= tf.maximum(size, _LEAST_SIZE)
            new = weight - step
            if decay:
                new = new - rate * decay * weight
            results = [new, *new_slots]
            if averages:
                kept = config.ema_decay
                results.append(kept * slots[-1] + (1.0 - kept) * new)
            pairs = zip(results, [weight, *slots], strict=True)
            taken = accepted & moves
            return [tf.where(taken, result, old) for result, old in pairs]

        return formula


def _assign(formula, weight, gradient, scalars, *slots):
    """Runs on one replica: its copies, not the distributed ones."""
    olds = [variable.read_value() for variable in (weight, *slots)]
    news = formula(gradient, scalars, *olds)
    for variable, new in zip((weight, *slots), news, strict=True):
        variable.assign(new)


def _as_it_is(function):
    return function
