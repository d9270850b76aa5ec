"""The train step: per-replica sums, one reduction, one update.

A step takes K micro-batches. Every replica sums token losses and gradients over its
rows of them; the sums are reduced over all replicas once, divided by the number of
real tokens of the whole step (in general: the sum of its weights), clipped by their
global norm and applied. So the result does not depend on how the rows were spread.
"""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from keras_llm.training.config import TrainConfig
from keras_llm.training.optimizer import Optimizer, Update
from keras_llm.training.schedule import learning_rate
from keras_llm.training.task import Moves, SummedLoss


class StepResult(NamedTuple):
    """What a step reports, or S steps as tensors [S].

    Attributes:
        loss: Mean over what the step's weights count, such as its real tokens.
        gradient_norm: Global norm of the mean gradient, before clipping.
        learning_rate: As the schedule has it.
        weight: Sum of the step's weights, such as its real tokens.
        accepted: False where NaN or infinity came up and nothing was changed.
    """

    loss: Any
    gradient_norm: Any
    learning_rate: Any
    weight: Any
    accepted: Any


_DTYPES = StepResult(tf.float32, tf.float32, tf.float32, tf.float32, tf.bool)


class TrainStep:
    """Runs optimizer steps on every replica of a strategy.

    Args:
        strategy: The default one, Mirrored, multi-worker or TPU.
        model: Its trainable weights are what is trained; made in the strategy's
            scope, and so the optimizer.
        optimizer: Over the same weights.
        config: How to train.
        summed_loss: From a micro-batch and the step's number to the weighted sum of
            its losses, recorded by a gradient tape.
        jit: "off", "parts" or "full".
        moves: Which weights a step changes; None for all.

    Attributes:
        bad_in_a_row: int32 variable, steps without an update since the last one.
        state: What a checkpoint must hold beside model and optimizer, by name.
    """

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        model: keras.Model,
        optimizer: Optimizer,
        config: TrainConfig,
        summed_loss: SummedLoss,
        jit: str = "off",
        moves: Moves | None = None,
    ):
        self.strategy = strategy
        self.optimizer = optimizer
        self.config = config
        self.summed_loss = summed_loss
        self.moves = moves
        self.rate = learning_rate(config)
        self.weights = [weight.value for weight in model.trainable_variables]
        with strategy.scope():
            self.bad_in_a_row = tf.Variable(0, dtype=tf.int32, trainable=False)
            self.sums = self._accumulators() if config.accumulation > 1 else []
        self.state = {"loop/bad_in_a_row": self.bad_in_a_row}
        self._compile(jit)

    def _compile(self, jit: str) -> None:
        alone = self.strategy.num_replicas_in_sync == 1
        whole = jit == "full" and alone
        # Where all of a step is one XLA program, its parts need none of their own.
        self.fuse = None if jit == "off" or whole else fuse
        self.step = fuse(self._step) if whole else self._step
        # With replicas XLA takes one replica's part; reductions stay outside.
        fused_part = jit == "full" and not alone
        self.loss_and_gradients = (
            fuse(self._loss_and_gradients) if fused_part else self._loss_and_gradients
        )
        self._steps = tf.function(self._run, autograph=False)
        self._traced = False

    def run(self, first_step: tf.Tensor, batches: dict[str, Any]) -> StepResult:
        """Runs S steps in one compiled call.

        Args:
            first_step: Number of the first of them, int64.
            batches: Arrays by name, `weights` among them, each [S, K, R, ...] (per
                replica where there are several).

        Returns:
            Tensors [S].
        """
        if not self._traced and not tf.config.functions_run_eagerly():
            # One trace serves every S: left to itself TensorFlow makes one for the
            # first S and another for all others.
            specs = {name: _any_length(batch) for name, batch in batches.items()}
            self._steps.get_concrete_function(first_step, specs)
            self._traced = True
        return self._steps(first_step, batches)

    def _accumulators(self) -> list[tf.Variable]:
        shapes = [(), (), *(weight.shape for weight in self.weights)]
        return [
            tf.Variable(
                tf.zeros(shape),
                trainable=False,
                synchronization=tf.VariableSynchronization.ON_READ,
                aggregation=tf.VariableAggregation.SUM,
            )
            for shape in shapes
        ]

    def _run(self, first_step, batches):
        local = self.strategy.experimental_local_results(batches["weights"])[0]
        count = tf.shape(local)[0]

        def take_step(i, results):
            rows = self.strategy.run(_take, args=(batches, i))
            result = self.step(first_step + tf.cast(i, tf.int64), rows)
            return i + 1, StepResult(*map(_writer(i), results, result))

        results = StepResult(*(tf.TensorArray(dtype, count) for dtype in _DTYPES))
        _, results = tf.while_loop(lambda i, _: i < count, take_step, (0, results))
        return StepResult(*(array.stack() for array in results))

    def _step(self, step, rows):
        """Runs one step on micro-batches [K, R, ...] of every replica."""
        strategy = self.strategy
        if self.sums:

            def accumulate(k):
                strategy.run(self._accumulate, args=(rows, k, step))
                return (k + 1,)

            tf.while_loop(lambda k: k < self.config.accumulation, accumulate, (0,))
            totals = strategy.run(self._read_and_clear)
        else:
            totals = strategy.run(self._micro_batch, args=(rows, 0, step))
        loss, weight, norm, scale, accepted, gradients = strategy.run(
            self._reduce, args=(totals,)
        )
        rate = self.rate(step)
        moves = self.moves(step) if self.moves else None
        update = Update(learning_rate=rate, scale=scale, accepted=accepted, moves=moves)
        self.optimizer.apply(strategy, gradients, update, self.fuse)
        strategy.extended.update(
            self.bad_in_a_row, _count_bad, args=(accepted,), group=False
        )
        result = StepResult(loss, norm, rate, weight, accepted)
        return StepResult(
            *(strategy.experimental_local_results(value)[0] for value in result)
        )

    def _loss_and_gradients(self, batch, step):
        with tf.GradientTape() as tape:
            loss = self.summed_loss(batch, step)
        with warnings.catch_warnings():
            # That a large table's gradient takes memory, which it does.
            warnings.filterwarnings("ignore", "Converting sparse IndexedSlices")
            gradients = tape.gradient(
                loss, self.weights, unconnected_gradients=tf.UnconnectedGradients.ZERO
            )
            # An embedding's comes as rows, some twice: summed before the norm.
            return loss, [tf.convert_to_tensor(gradient) for gradient in gradients]

    def _micro_batch(self, rows, k, step):
        """Returns [loss sum, weight sum, *gradient sums] of one replica."""
        batch = _take(rows, k)
        loss, gradients = self.loss_and_gradients(batch, step)
        return [loss, tf.reduce_sum(batch["weights"]), *gradients]

    def _accumulate(self, rows, k, step):
        values = self._micro_batch(rows, k, step)
        for total, value in zip(self.sums, values, strict=True):
            total.assign_add(value)

    def _read_and_clear(self):
        values = [total.read_value() for total in self.sums]
        with tf.control_dependencies(values):
            for total in self.sums:
                total.assign(tf.zeros_like(total))
        return values

    def _reduce(self, totals):
        """Returns what the update needs, equal on every replica."""
        context = tf.distribute.get_replica_context()
        if context.num_replicas_in_sync > 1:
            totals = context.all_reduce(tf.distribute.ReduceOp.SUM, totals)
        loss, weight, *gradients = totals
        # No real token, no gradient: 0 / 1 instead of 0 / 0.
        share = 1.0 / tf.where(weight > 0, weight, 1.0)
        loss, norm = loss * share, tf.linalg.global_norm(gradients) * share
        accepted = tf.math.is_finite(loss) & tf.math.is_finite(norm)
        # At the limit the run has failed: what follows must not hide that.
        accepted &= self.bad_in_a_row.read_value() < self.config.max_bad_steps
        scale = share
        if self.config.clip_norm is not None:
            limit = self.config.clip_norm
            scale = share * (limit / tf.maximum(norm, limit))
        return loss, weight, norm, scale, accepted, gradients


def fuse(function: Callable) -> Callable:
    """Compiles a function with XLA, once per shape of its arguments."""
    return tf.function(function, jit_compile=True, autograph=False)


def _any_length(batch):
    """Returns the spec of what is like `batch` but for the length of its first axis."""
    longer = tf.nest.map_structure(
        lambda part: tf.concat([part, part], axis=0), batch, expand_composites=True
    )
    spec, other = tf.type_spec_from_value(batch), tf.type_spec_from_value(longer)
    return spec.most_specific_common_supertype([other])


def _take(batches, i):
    return {name: value[i] for name, value in batches.items()}


def _writer(i):
    return lambda array, value: array.write(i, value)


def _count_bad(bad_in_a_row, accepted):
    bad_in_a_row.assign(tf.where(accepted, 0, bad_in_a_row.read_value() + 1))
