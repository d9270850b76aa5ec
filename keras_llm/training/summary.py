"""What a run tells when it ends."""

import dataclasses
from typing import Any

from keras_llm.training.metrics import finite_or_none
from keras_llm.training.reduction import Reduction
from keras_llm.training.task import Judgement
from keras_llm.training.watch import INPUT_BOUND


@dataclasses.dataclass(frozen=True)
class Summary:
    """How a run ended.

    Attributes:
        step: Steps taken.
        stopped_by: "steps" or "patience".
        train_loss: Of the last step; in nats per token for a language model.
        validation: Of the last evaluation.
        best_loss: Lowest validation loss.
        best_step: Where it was reached.
        tokens: Tokens trained on, over all resumptions.
        seconds: Likewise, evaluations and checkpoints included.
        tokens_per_second: While training, in this process.
        utilisation: Share of the measured peak of all devices, or None if unknown.
        input_share: Share of the training time spent making batches, or None.
        reduction: What summing gradients over the replicas takes; None for one.
        parameters: Trainable values.
        bad_steps: Steps left out because of NaN or infinity.
        notes: What a reader should know, such as a plot that was not drawn.
    """

    step: int
    stopped_by: str
    train_loss: float | None
    validation: Judgement | None
    best_loss: float | None
    best_step: int | None
    tokens: int
    seconds: float
    tokens_per_second: float
    utilisation: float | None
    input_share: float | None
    reduction: Reduction | None
    parameters: int
    bad_steps: int
    notes: tuple[str, ...] = ()

    @property
    def bound_by(self) -> str | None:
        """Returns "input" or "compute", what took the time; None before any."""
        if self.input_share is None:
            return None
        return "input" if self.input_share > INPUT_BOUND else "compute"

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values, ready for JSON: NaN and infinity become None."""
        plain = dict(vars(self))
        if self.validation is not None:
            plain["validation"] = self.validation.to_dict()
        if self.reduction is not None:
            plain["reduction"] = self.reduction._asdict()
        return finite_or_none(plain)
