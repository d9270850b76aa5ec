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


@contextlib.contextmanager
def layout(model, jit: bool) -> Iterator[list]:
    """Lays a model's kernels out for tracing; yields the variables to write.

    Compiled products read a kernel as it is; others want it in panels.
    """
    several = models.several_adapters(model)
    own = several.variables if several else []
    plain = contextlib.nullcontext(model.weights)
    with plain if jit else packed_kernels(model) as weights:
        yield [*weights, *own]
