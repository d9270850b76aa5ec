r"""Trains a GPT on the JAX backend, spread over devices, and saves a model folder.

Without an accelerator the CPU stands in for four devices:

    XLA_FLAGS=--xla_force_host_platform_device_count=4 \
      python docs/examples/train_sharded.py --text=testdata/moby_dick.txt \
      --out=models/sharded --data_parallel=2 --model_parallel=2

The folder is exported and served like any other: scripts/export.py --model=...
"""

import os

os.environ["KERAS_BACKEND"] = "jax"  # Before Keras is imported.

import json

import jax
import keras
from absl import app, flags

from keras_llm import data, models, tokenizers

_TEXT = flags.DEFINE_string("text", None, "Text to learn from.", required=True)
_OUT = flags.DEFINE_string("out", None, "New model folder.", required=True)
_DATA = flags.DEFINE_integer("data_parallel", 1, "Devices that share the rows.")
_MODEL = flags.DEFINE_integer("model_parallel", 1, "Devices that share each weight.")
_STEPS = flags.DEFINE_integer("steps", 30, "Optimizer steps.")


def spread(config: models.LlamaConfig) -> None:
    """Lays the devices out; what Keras makes from here on is spread over them."""
    shape = (_DATA.value, _MODEL.value)
    devices = keras.distribution.list_devices()[: shape[0] * shape[1]]
    mesh = keras.distribution.DeviceMesh(shape, ("batch", "model"), devices)
    keras.distribution.set_distribution(
        keras.distribution.ModelParallel(
            layout_map=models.layout_map(config, mesh), batch_dim_name="batch"
        )
    )


def largest_share(variables) -> int:
    """Returns the bytes that the fullest device holds of some variables."""
    held = dict.fromkeys(jax.devices(), 0)
    for variable in variables:
        for part in variable.value.addressable_shards:
            held[part.device] += part.data.nbytes
    return max(held.values())


def working_bytes(model: keras.Model, batch: dict) -> int:
    """Returns what XLA sets aside on a device for activations and gradients.

    It is told by the compiled program of loss and gradients; weights and optimizer are
    beside it.
    """
    layout = keras.distribution.distribution().get_data_layout(batch["token_ids"].shape)
    ids, targets = (
        jax.device_put(batch[name], layout.backend_layout)
        for name in ("token_ids", "targets")
    )
    others = [variable.value for variable in model.non_trainable_variables]

    def loss(weights, ids, targets):
        logits, _ = model.stateless_call(weights, others, ids, training=True)
        losses = keras.losses.sparse_categorical_crossentropy(
            targets, logits, from_logits=True
        )
        return keras.ops.mean(losses)

    weights = [variable.value for variable in model.trainable_variables]
    program = jax.jit(jax.grad(loss)).lower(weights, ids, targets).compile()
    memory = program.memory_analysis()
    return memory.temp_size_in_bytes + memory.output_size_in_bytes


def main(argv: list[str]) -> None:
    """Trains and prints the losses and the bytes on the fullest device."""
    del argv
    tokenizer = tokenizers.ByteTokenizer()
    config = models.LlamaConfig(
        vocab_size=260,  # The tokenizer's 257, and three more: a multiple of 4.
        width=64,
        num_layers=2,
        num_heads=4,
        max_positions=64,
    )
    rows = data.training_batches(
        _TEXT.value, tokenizer, data.DataConfig(context=48, batch_size=8)
    )
    keras.utils.set_random_seed(1)
    spread(config)
    model = models.build(config)
    optimizer = keras.optimizers.AdamW(
        1e-3, global_clipnorm=1.0, gradient_accumulation_steps=2
    )
    model.compile(
        optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    losses = []
    for _ in range(_STEPS.value):
        batch = next(rows)
        model.reset_metrics()  # Or Keras gives the mean over all batches so far.
        losses.append(
            float(
                model.train_on_batch(
                    batch["token_ids"], batch["targets"], batch["weights"]
                )
            )
        )
    models.save(model, _OUT.value, tokenizer)
    print(
        json.dumps(
            {
                "losses": losses,
                "weight_bytes": largest_share(model.weights),
                "optimizer_bytes": largest_share(optimizer.variables),
                "working_bytes": working_bytes(model, batch),
            }
        )
    )


if __name__ == "__main__":
    app.run(main)
