"""What a run will take in memory and arithmetic, worked out before it is begun."""

import dataclasses
import pathlib
import tempfile
import time
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_llm import models
from keras_llm.training.checkpoints import named_arrays, num_bytes
from keras_llm.training.experiment import Experiment
from keras_llm.training.flops import flops_per_token
from keras_llm.training.live_bytes import peak_bytes
from keras_llm.training.run_folder import RunFolder
from keras_llm.training.setup import make_step, prepare_inputs
from keras_llm.training.tasks import LanguageModel

Arrays = Mapping[str, np.ndarray]

# Ids of tokenizers whose number the config does not say: 256 bytes and the end.
_BYTES = 257
_UNTRAINED = ("byte_bpe", "unigram", "bpe", "wordpiece")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """Numbers of a run. Memory is in bytes, on each device.

    Attributes:
        parameters: Trained values.
        weight_bytes: Of all weights, trained or not, in their own dtype.
        slot_bytes: Of the optimizer: its moments, and the averaged weights.
        sum_bytes: Of gradients summed over micro-batches; 0 where there is one.
        gradient_bytes: Of one micro-batch's gradients.
        activation_bytes: What the backward pass holds at the most beside those
            gradients: values kept from the forward pass, and working memory.
        checkpoint_bytes: A copy of what a checkpoint holds, while it is written in the
            background; beside an accelerator in the host's memory.
        tokens_per_step: Positions of the rows of a step, all devices together.
        flops_per_token: Of forward and backward pass.
    """

    parameters: int
    weight_bytes: int
    slot_bytes: int
    sum_bytes: int
    gradient_bytes: int
    activation_bytes: int
    checkpoint_bytes: int
    tokens_per_step: int
    flops_per_token: float

    @property
    def total_bytes(self) -> int:
        """Returns the bytes of a step at its peak, a checkpoint's copy left aside."""
        return (
            self.weight_bytes
            + self.slot_bytes
            + self.sum_bytes
            + self.gradient_bytes
            + self.activation_bytes
        )


def prepare_plan(
    experiment: Experiment, train_text: Any = None, tokenizer: Any = None
) -> tuple[Experiment, Arrays]:
    """Returns the experiment with its vocabulary filled in, and a batch of its shapes.

    Args:
        experiment: As for `training.train`.
        train_text: What the run would learn from, read as the run would; None, for
            next-token prediction alone, takes rows of the config's sizes.
        tokenizer: As for `training.train`.

    Raises:
        ValueError: Text is needed, or what `training.train` refuses.
    """
    if train_text is not None:
        strategy = tf.distribute.get_strategy()
        with tempfile.TemporaryDirectory() as scratch:
            folder = RunFolder(pathlib.Path(scratch) / "run")  # Never made.
            # What an adapter is learnt beside is not read: of a head that is not in it,
            # and so is learnt whole, only the frozen weights are counted.
            inputs = prepare_inputs(
                experiment,
                train_text,
                train_text,
                folder,
                False,
                tokenizer,
                strategy,
                planned=True,
            )
        return inputs.experiment, next(inputs.batches)
    if not isinstance(experiment.task, LanguageModel):
        raise ValueError(
            "The rows of a task depend on its text. Received: task "
            f"{experiment.task.kind!r} without any. Give --train_text."
        )
    model = experiment.model.replace(vocab_size=_vocab_size(experiment, tokenizer))
    if experiment.data.separate_documents:
        model = model.replace(separator_id=0)
    shape = (experiment.data.batch_size, experiment.data.context)
    ids = np.zeros(shape, "int32")
    batch = {"token_ids": ids, "targets": ids, "weights": np.ones(shape, "float32")}
    return experiment.replace(model=model), batch


def _vocab_size(experiment: Experiment, tokenizer: Any) -> int:
    model: Any = experiment.model
    if model.vocab_size:
        return model.vocab_size
    if tokenizer is not None:
        return tokenizer.vocab_size
    config = experiment.tokenizer
    if config.kind in _UNTRAINED:
        return config.vocab_size
    if config.kind == "byte":
        return _BYTES
    raise ValueError(
        "The size of the vocabulary must be known. Received: model.vocab_size=0 and a "
        f"tokenizer of the kind {config.kind!r}, whose size its text decides. Give "
        "--train_text, --tokenizer or --model.vocab_size."
    )


def plan(experiment: Experiment, batch: Arrays, replicas: int = 1) -> Plan:
    """Works out a run's numbers without making any of its values.

    A step is traced with symbolic weights, whatever their size, and its memory
    counted over the operations in order, those that XLA would fuse one by one.

    Args:
        experiment: With its vocabulary filled in.
        batch: A micro-batch of all devices together; its shapes alone count.
        replicas: Devices that share the rows of a micro-batch.

    Raises:
        ValueError: The rows cannot be shared so, or what `make_step` refuses.
    """
    rows = experiment.data.batch_size
    if not 0 < replicas <= rows or rows % replicas:
        raise ValueError(
            "`data.batch_size` must be a multiple of the number of replicas, so that "
            f"each has rows. Received: data.batch_size={rows}, {replicas} replicas."
        )
    config = experiment.train.replace(jit="off")
    with tf.Graph().as_default() as graph:
        keras.utils.set_random_seed(0)
        model = _build(experiment)
        step = make_step(model, config, rows=rows // replicas, task=experiment.task)
        inputs = {
            name: tf.compat.v1.placeholder(
                array.dtype, (array.shape[0] // replicas, *array.shape[1:])
            )
            for name, array in batch.items()
        }
        built = len(graph.get_operations())
        loss, gradients = step.loss_and_gradients(inputs, tf.constant(0, tf.int64))
        operations = graph.get_operations()[built:]
    gradient_bytes = sum(map(_bytes, gradients))
    arrays = named_arrays(model, step.optimizer, step.state)
    several = config.accumulation > 1
    return Plan(
        parameters=models.count_parameters(model),
        weight_bytes=sum(_bytes(weight.value) for weight in model.weights),
        slot_bytes=sum(
            _bytes(slot)
            for slots in step.optimizer.slots.values()
            for slot in slots
            if slot is not None
        ),
        sum_bytes=gradient_bytes if several else 0,
        gradient_bytes=gradient_bytes,
        checkpoint_bytes=num_bytes(arrays) if config.save_in_background else 0,
        activation_bytes=peak_bytes(operations, [loss, *gradients]) - gradient_bytes,
        tokens_per_step=config.accumulation * experiment.task.count_tokens(batch),
        flops_per_token=flops_per_token(experiment.model, experiment),
    )


def _build(experiment: Experiment) -> Any:
    """Returns the run's model with fresh weights, and its adapter if it has one."""
    model = models.build(experiment.model, experiment.train.dtype)
    if experiment.adapter is not None:
        models.add_adapter(model, experiment.adapter)
    return model


def _bytes(tensor: Any) -> int:
    return tensor.shape.num_elements() * tensor.dtype.size


def measure_step(experiment: Experiment, batch: Arrays, steps: int = 3) -> float:
    """Returns the seconds of an optimizer step here: the least of a few.

    Two more are run before, in which TensorFlow compiles and takes its memory.

    Args:
        experiment: With its vocabulary filled in.
        batch: A micro-batch; the step gets the same as often as it takes.
        steps: How many to time.
    """
    config = experiment.train
    keras.utils.set_random_seed(config.seed)
    model = _build(experiment)
    step = make_step(
        model, config, rows=experiment.data.batch_size, task=experiment.task
    )
    batches = {
        name: tf.constant(np.stack([array] * config.accumulation)[None])
        for name, array in batch.items()
    }
    seconds = []
    for i in range(steps + 2):
        begun = time.perf_counter()
        step.run(tf.constant(i, tf.int64), batches).loss.numpy()
        seconds.append(time.perf_counter() - begun)
    return min(seconds[2:])
