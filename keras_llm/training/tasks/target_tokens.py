"""What the tasks share whose loss is the mean over some of the tokens."""

import math

import tensorflow as tf

from keras_llm.training.objective import training_loss, validation_loss
from keras_llm.training.task import Objective, Task
from keras_llm.training.validation import Scores, Validator, perplexity


class TargetTokens(Task):
    """Learns the tokens that a batch gives weight, and is judged by them."""

    def objective(self, model, config, fuse=None, rows=None):
        """Returns the mean cross-entropy of the targets' tokens."""
        del rows
        return Objective(training_loss(model, config.label_smoothing, fuse))

    def validator(self, strategy, model, batches):
        """Returns the judge over the validation targets."""
        return target_validator(strategy, model, batches)


def target_validator(strategy, model, batches) -> Validator[Scores]:
    """Returns the judge by the mean loss of target tokens."""
    summed_loss = validation_loss(model)

    def sums(batch):
        return {"loss": summed_loss(batch), "count": tf.reduce_sum(batch["weights"])}

    def judge(sums):
        # NaN where there is no target to judge by: never the best.
        loss = float(sums["loss"]) / (float(sums["count"]) or math.nan)
        return Scores(loss, {"perplexity": perplexity(loss)}, batches.num_rows)

    return Validator(strategy, batches, sums, judge)
