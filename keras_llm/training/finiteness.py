"""When steps that met NaN or infinity are too many."""

from keras_llm.training.config import TrainConfig
from keras_llm.training.step import StepResult


class NonFiniteError(ArithmeticError):
    """Too many steps in a row met NaN or infinity; the message names the batch."""


def check_finite(
    result: StepResult, bad_in_a_row: int, config: TrainConfig, step: int
) -> None:
    """Raises NonFiniteError once too many steps in a row were refused.

    Args:
        result: Of the last call.
        bad_in_a_row: Steps refused since the last one that was not.
        config: Gives the limit.
        step: Steps taken so far, refused ones included.
    """
    if bad_in_a_row < config.max_bad_steps:
        return
    first = step - bad_in_a_row + 1
    batch = (first - 1) * config.accumulation
    raise NonFiniteError(
        f"Loss or gradient was NaN or infinite in {config.max_bad_steps} steps in a "
        f"row, from step {first} (micro-batch {batch}) on; the weights stand as before "
        f"it. At the last of them: loss {result.loss[-1]}, gradient norm "
        f"{result.gradient_norm[-1]}, learning rate {result.learning_rate[-1]:.3g}. "
        "Lower the learning rate, or look at that batch: its number goes to the "
        "batches' `batch(number)`."
    )
