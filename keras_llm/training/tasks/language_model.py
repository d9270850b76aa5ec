"""Next-token prediction over the text of a corpus."""

import dataclasses

import tensorflow as tf

from keras_llm import data
from keras_llm.training.objective import CarriedState, training_loss
from keras_llm.training.task import (
    Objective,
    Task,
    check_architecture,
    fill_in_vocabulary,
    validation_config,
)
from keras_llm.training.validation import text_validator


@dataclasses.dataclass(frozen=True, kw_only=True)
class LanguageModel(Task):
    """Predicts every token of a text from all before it.

    loss = -mean(log p(token[t] | token[< t])), over all real tokens of the step.

    >>> LanguageModel().kind
    'language_model'
    """

    kind = "language_model"

    def fill_in(self, experiment, tokenizer, train_text):
        """Returns the experiment with the vocabulary's size and its separator."""
        del train_text
        check_architecture(self, experiment.model, "gemma", "gpt2", "llama", "lstm_lm")
        model = fill_in_vocabulary(experiment.model, tokenizer)
        separator = None
        if experiment.data.separate_documents:
            separator = tokenizer.special_ids["end"]
        return experiment.replace(model=model.replace(separator_id=separator))

    def batches(self, experiment, train_text, valid_text, tokenizer, team):
        """Returns rows of the training text, and all rows of the validation text."""
        config = experiment.data
        if valid_text is None:
            train_text, valid_text = data.load_splits(train_text, tokenizer, config)
        return (
            data.training_batches(train_text, tokenizer, config, *team),
            data.validation_batches(
                valid_text, tokenizer, validation_config(config), *team
            ),
        )

    def objective(self, model, config, fuse=None, rows=None):
        """Returns the mean cross-entropy; `carry_state` goes on from row to row.

        Raises:
            ValueError: `carry_state` with a model that has none, or several replicas.
        """
        if not config.carry_state:
            return Objective(training_loss(model, config.label_smoothing, fuse))
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        if rows is None or replicas > 1:
            raise ValueError(
                "`carry_state` keeps the state of a fixed number of rows on one "
                f"device. Received: rows={rows}, {replicas} replicas. Train on one "
                "device, or set carry_state=False."
            )
        carried = CarriedState(model, rows)
        return Objective(
            training_loss(model, config.label_smoothing, fuse, carried),
            {f"carried/{name}": v for name, v in carried.variables.items()},
        )

    def validator(self, strategy, model, batches):
        """Returns the function that measures the loss over the validation text."""
        return text_validator(strategy, model, batches)
