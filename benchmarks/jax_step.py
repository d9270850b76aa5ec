"""Times a GPT-2's training step on the JAX backend, beside the products it is made of.

Prints the rate of a large matrix product, then of whole steps: forward pass, the
chunked loss, backward pass, AdamW. With --peer it times Transformers on PyTorch at the
same shape, in the same run; with --check it compares logits and loss with those of
this machine's CPU in float32. Nothing of TensorFlow is imported, so that it runs where
JAX alone is installed.

Example: python benchmarks/jax_step.py --rows=16 --context=1024 --peer
"""

import argparse
import functools
import json
import os
import pathlib
import statistics
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

os.environ["KERAS_BACKEND"] = "jax"  # Before Keras is imported.

import jax
import jax.numpy as jnp
import keras
import numpy as np

from keras_llm import models
from keras_llm.ops import losses


def median_seconds(call, repeats, uncounted=3):
    """Returns the median duration of a call whose result is waited for."""
    seconds = []
    for _ in range(uncounted + repeats):
        start = time.perf_counter()
        jax.block_until_ready(call())
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[uncounted:])


def product_rate(size, dtype):
    """Returns the operations a second of a product of two square matrices."""
    keys = jax.random.split(jax.random.PRNGKey(0))
    a, b = (jax.random.normal(key, (size, size), dtype) for key in keys)
    product = jax.jit(jnp.matmul)
    return 2 * size**3 / median_seconds(lambda: product(a, b), 10)


def loss_function(model):
    """Returns the function from weights and one batch to the mean loss."""
    trunk, _ = models.split_head(model)
    table = model.get_layer("token_embedding").embeddings
    where = [variable is table for variable in trunk.trainable_variables].index(True)

    def mean_loss(weights, others, token_ids, targets):
        hidden, _ = trunk.stateless_call(weights, others, token_ids, training=True)
        count = targets.size
        total = losses.head_loss(
            hidden.reshape(-1, hidden.shape[-1]),
            weights[where],
            targets.reshape(-1),
            jnp.ones(count),
        )
        return total / count

    return trunk, mean_loss


def training_step(model):
    """Returns the state, and the compiled function from it and a batch to both."""
    trunk, mean_loss = loss_function(model)
    optimizer = keras.optimizers.AdamW(1e-4)
    optimizer.build(trunk.trainable_variables)
    slope = jax.value_and_grad(mean_loss)

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state, token_ids, targets):
        weights, others, slots = state
        loss, gradients = slope(weights, others, token_ids, targets)
        weights, slots = optimizer.stateless_apply(slots, gradients, weights)
        return (weights, others, slots), loss

    state = (
        [variable.value for variable in trunk.trainable_variables],
        [variable.value for variable in trunk.non_trainable_variables],
        [variable.value for variable in optimizer.variables],
    )
    return state, step


def own_rate(config, shape, dtype, repeats):
    """Returns tokens a second of this package's step."""
    model = models.build(config, dtype=dtype)
    state, step = training_step(model)
    ids = np.random.default_rng(0).integers(config.vocab_size, size=shape)
    token_ids = jnp.asarray(ids, "int32")
    held = {"state": state}

    def call():
        held["state"], loss = step(held["state"], token_ids, token_ids)
        return loss

    return token_ids.size / median_seconds(call, repeats)


def peer_rate(config, shape, repeats, compiled):
    """Returns tokens a second of Transformers' step under bfloat16 autocast."""
    import torch
    import transformers

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=config.vocab_size,
            n_positions=config.max_positions,
            n_embd=config.width,
            n_layer=config.num_layers,
            n_head=config.num_heads,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
        )
    ).to(device)
    forward = torch.compile(model) if compiled else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    ids = torch.randint(config.vocab_size, shape, device=device)
    seconds = []
    for _ in range(5 + repeats):
        start = time.perf_counter()
        with torch.autocast(device, torch.bfloat16):
            loss = forward(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return ids.numel() / statistics.median(seconds[5:])


def check(config):
    """Returns the largest difference of logits from the CPU's, and of the loss."""
    shape = (3, min(96, config.max_positions))
    ids = np.random.default_rng(1).integers(config.vocab_size, size=shape)
    found = {}
    for name, device in (("cpu", jax.devices("cpu")[0]), ("here", jax.devices()[0])):
        with jax.default_device(device), jax.default_matmul_precision("highest"):
            keras.utils.set_random_seed(0)
            model = models.build(config, dtype="float32")
            trunk, mean_loss = loss_function(model)
            weights = [variable.value for variable in trunk.trainable_variables]
            token_ids = jnp.asarray(ids, "int32")
            others = [variable.value for variable in trunk.non_trainable_variables]
            loss, slopes = jax.value_and_grad(mean_loss)(
                weights, others, token_ids, token_ids
            )
            norm = sum(float(jnp.sum(slope**2)) for slope in slopes) ** 0.5
            found[name] = (np.asarray(model(token_ids)), float(loss), norm)
    (a, loss_a, norm_a), (b, loss_b, norm_b) = found["cpu"], found["here"]
    return {
        "logits": float(np.abs(a - b).max()),
        "loss": abs(loss_a - loss_b),
        "norm": abs(norm_a - norm_b) / norm_a,
    }


def main():
    """Reads the flags, measures, and prints one line of JSON."""
    flags = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    flags.add_argument("--rows", type=int, default=4)
    flags.add_argument("--context", type=int, default=256)
    flags.add_argument("--vocabulary", type=int, default=50_257)
    flags.add_argument("--width", type=int, default=768)
    flags.add_argument("--layers", type=int, default=12)
    flags.add_argument("--heads", type=int, default=12)
    flags.add_argument("--product", type=int, default=4_096)
    flags.add_argument("--dtype", default="mixed_bfloat16")
    flags.add_argument("--repeats", type=int, default=10)
    flags.add_argument("--peer", action="store_true")
    flags.add_argument("--check", action="store_true")
    given = flags.parse_args()
    config = models.GPT2Config(
        vocab_size=given.vocabulary,
        max_positions=given.context,
        width=given.width,
        num_layers=given.layers,
        num_heads=given.heads,
    )
    figures = {"device": jax.devices()[0].device_kind}
    if given.check:
        figures["differences"] = check(config)
    half = given.dtype.removeprefix("mixed_")
    peak = product_rate(given.product, half)
    shape = (given.rows, given.context)
    rate = own_rate(config, shape, given.dtype, given.repeats)
    work = models.flops_per_token(config, given.context)
    figures |= {
        "product_teraflops": float(f"{peak / 1e12:.4g}"),
        "tokens_per_second": round(rate),
        "share_of_product": float(f"{rate * work / peak:.3g}"),
    }
    if given.peer:
        for name, compiled in (("peer", False), ("peer_compiled", True)):
            figures[name] = round(peer_rate(config, shape, given.repeats, compiled))
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
