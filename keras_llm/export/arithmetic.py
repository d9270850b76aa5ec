"""How an export computes: in which dtype, and on kernels laid out in which way."""

import contextlib
from collections.abc import Iterator

from keras_llm import models
from keras_llm.layers.packing import packed_kernels

# Of log probabilities, relative to 1 or to the value, whichever is greater: in half
# precision four units in the last place.
TOLERANCES = {"float32": 1e-4, "float16": 2e-3, "bfloat16": 1.6e-2}


def compute_dtype(model) -> str:
    """Returns the dtype of a model's arithmetic, one of `TOLERANCES`."""
    return model.layers[-1].compute_dtype


def weight_kind(model) -> str:
    """Returns what projections and tables are kept in: "int8", or as they compute."""
    return compute_dtype(model) if models.quantized_weights(model) is None else "int8"


@contextlib.contextmanager
def layout(model, jit: bool) -> Iterator[list]:
    """Lays a model's kernels out for tracing; yields the variables to write.

    Compiled products read a kernel as it is; others want it in panels. What is
    quantised stays so.

    Raises:
        ValueError: A quantised model is to be compiled.
    """
    quantized = models.quantized_weights(model)
    if quantized is not None and jit:
        raise ValueError(
            "A quantised model is exported without `jit`: XLA multiplies by eight bits "
            "several times slower than by floats. Received: jit=True."
        )
    several = models.several_adapters(model)
    own = several.variables if several else []
    as_it_is = contextlib.nullcontext(quantized or model.weights)
    with as_it_is if jit or quantized else packed_kernels(model) as weights:
        yield [*weights, *own]
