"""Pure functions over tensors: masks, rotary angles, losses, sampling.

Each module is one subject; see `docs/notation.md` for the shape letters.
"""

from keras_llm.ops import (
    activations,
    attention,
    cache,
    elbo,
    gaussian,
    in_place,
    kl_weight,
    latent_estimates,
    losses,
    lstm,
    masked_tokens,
    masks,
    paths,
    random,
    replica,
    rotary,
    sampling,
    spans,
)

__all__ = [
    "attention",
    "activations",
    "cache",
    "elbo",
    "gaussian",
    "in_place",
    "kl_weight",
    "latent_estimates",
    "losses",
    "lstm",
    "masked_tokens",
    "masks",
    "paths",
    "random",
    "replica",
    "rotary",
    "sampling",
    "spans",
]
