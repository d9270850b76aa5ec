"""Rows of text with masked tokens, for the tasks that learn from them."""

from typing import Any

from keras_llm import data
from keras_llm.data import masking
from keras_llm.training.replicas import Workers
from keras_llm.training.task import fill_in_vocabulary, validation_config

# The same places at every evaluation of every run.
_VALIDATION_SEED = 0
_SHORTEST = masking.FRAME + 1


def fill_in(experiment: Any, tokenizer: Any) -> Any:
    """Returns the experiment with the vocabulary's size.

    Raises:
        ValueError: The tokenizer has no mask id, or rows of text are not read so.
    """
    masking.check_mask_id(tokenizer)
    config = experiment.data
    if config.separate_documents:
        raise ValueError(
            "A row of masked text goes on from one document to the next, with the "
            '"end" id between them. Received: data.separate_documents=True. Set '
            "data.separate_documents=False."
        )
    if not config.context >= _SHORTEST:
        raise ValueError(
            f"`data.context` must be at least {_SHORTEST}: two ids frame the text of "
            f"a row. Received: data.context={config.context}."
        )
    return experiment.replace(model=fill_in_vocabulary(experiment.model, tokenizer))


def masked_batches(
    experiment: Any,
    train_text: Any,
    valid_text: Any,
    tokenizer: Any,
    team: Workers,
    **choices: Any,
) -> tuple[data.TrainingBatches, data.ValidationBatches]:
    """Returns this worker's training and validation rows, framed and masked.

    Args:
        experiment: Filled in; a row has `data.context` ids, the frame's two included.
        train_text: What to learn from.
        valid_text: What to judge by; None holds a share of `train_text` back.
        tokenizer: The run's.
        team: The workers that share the rows.
        **choices: How to mask; see `data.TokenMasking`.
    """
    config = _within_frame(experiment)
    if valid_text is None:
        train_text, valid_text = data.load_splits(train_text, tokenizer, config)
    train = data.TokenMasking(tokenizer, seed=config.seed, **choices)
    return (
        data.training_batches(train_text, tokenizer, config, *team, train),
        validation_batches(experiment, valid_text, tokenizer, team, **choices),
    )


def validation_batches(
    experiment: Any, text: Any, tokenizer: Any, team: Workers, **choices: Any
) -> data.ValidationBatches:
    """Returns this worker's rows of a text, masked alike every time."""
    larger = validation_config(_within_frame(experiment))
    masks = data.TokenMasking(tokenizer, seed=_VALIDATION_SEED, **choices)
    return data.validation_batches(text, tokenizer, larger, *team, masks)


def _within_frame(experiment: Any) -> data.DataConfig:
    return experiment.data.replace(context=experiment.data.context - masking.FRAME)
