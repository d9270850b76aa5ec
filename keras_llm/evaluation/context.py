"""How many tokens of a row a model is measured on."""

import keras

_LONGEST_CONTEXT = 1_024


def measured_context(model: keras.Model, context: int | None) -> int:
    """Returns the tokens of a row: those asked for, or what the model takes.

    Args:
        model: One of this package's.
        context: None for the model's positions, at most 1,024.

    Raises:
        ValueError: It exceeds the model's positions, or is not positive.
    """
    # A recurrent model has no greatest position.
    positions = getattr(model.config, "max_positions", None) or 2**31 - 1
    context = min(positions, _LONGEST_CONTEXT) if context is None else context
    if not 0 < context <= positions:
        raise ValueError(
            f"`context` must lie from 1 to the model's {positions} positions. "
            f"Received: context={context}."
        )
    return context
