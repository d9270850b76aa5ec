"""How an export computes: in which dtype, and on kernels laid out in which way."""

import contextlib

from keras_llm.layers.packing import packed_kernels

# Of log probabilities, relative to 1 or to the value, whichever is greater: in half
# precision four units in the last place.
TOLERANCES = {"float32": 1e-4, "float16": 2e-3, "bfloat16": 1.6e-2}


def compute_dtype(model) -> str:
    """Returns the dtype of a model's arithmetic, one of `TOLERANCES`."""
    return model.layers[-1].compute_dtype


def layout(model, jit: bool):
    """Returns the context to trace a model in; it yields the variables to write.

    Compiled products read a kernel as it is; others want it in panels.
    """
    return contextlib.nullcontext(model.weights) if jit else packed_kernels(model)
