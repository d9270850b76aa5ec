"""How well a model labels texts, tags words or finds answers, over examples."""

from collections.abc import Iterable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_llm import data
from keras_llm.evaluation.context import measured_context
from keras_llm.evaluation.span_scores import are_spans, span_scores
from keras_llm.training import (
    Classification,
    Experiment,
    QuestionAnswering,
    Scores,
    Tagging,
)
from keras_llm.training.class_scores import label_scores
from keras_llm.training.objective import inputs_of
from keras_llm.training.replicas import Workers

_BATCH_TOKENS = 8_192
_ALONE = Workers(1, 0)

Figures = dict[str, Any]


def evaluate_labels(
    model: keras.Model, tokenizer: Any, examples: Any, **reading: Any
) -> Figures:
    """Measures a model that says which label a text has.

    Args:
        model: Of the architecture `lstm_classifier`, or a `bert` that classifies.
        tokenizer: Its tokenizer.
        examples: JSON lines, as `Classification` learns from.
        **reading: `context`, the tokens that are read of an example; None for the
            model's positions, at most 1,024. Further fields of `data.TextConfig`.

    Returns:
        `loss`, `accuracy`, `macro_f1`, `num_rows`; under `labels` each label's
        `precision`, `recall`, `f1` and `support`; under `confusion` each label's
        examples by the label that the model gave them.

    Raises:
        data.DataError: An example without a label, or with one the model lacks.
        ValueError: A model of another kind, or a context beyond its positions.

    >>> import tempfile
    >>> from keras_llm import models, tokenizers
    >>> config = models.LSTMClassifierConfig(
    ...     vocab_size=257, embedding_width=3, units=2, labels=("bad", "good"))
    >>> with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
    ...     _ = file.write('{"text": "a fine film", "label": "good"}')
    ...     file.flush()
    ...     found = evaluate_labels(
    ...         models.build(config), tokenizers.ByteTokenizer(), file.name)
    >>> found["labels"]["good"]["support"], sum(found["confusion"]["good"].values())
    (1, 1)
    """
    scores, _ = _judge(Classification(), model, tokenizer, examples, **reading)
    return {**scores.to_dict(), **_by_label(scores, model.config.labels)}


def evaluate_tags(
    model: keras.Model, tokenizer: Any, examples: Any, **reading: Any
) -> Figures:
    """Measures a model that says which tag each word has.

    Args:
        model: A `bert` with the head "tag".
        tokenizer: Its tokenizer.
        examples: JSON lines, as `Tagging` learns from.
        **reading: As in `evaluate_labels`.

    Returns:
        As `evaluate_labels`, over words. Where the tags mark spans, as "B-name",
        "I-name" and "O" do, also `span_precision`, `span_recall` and `span_f1`: a
        span is right if its type and both its ends are. Words beyond the context are
        not judged.

    Raises:
        ImportError: The tags mark spans, and seqeval is not installed.
        ValueError: As in `evaluate_labels`.
    """
    scores, batches = _judge(Tagging(), model, tokenizer, examples, **reading)
    labels, spans = model.config.labels, {}
    if are_spans(labels):
        spans = span_scores(*_tags(model, batches, labels))
    return {**scores.to_dict(), **spans, **_by_label(scores, labels)}


def evaluate_answers(
    model: keras.Model, tokenizer: Any, examples: Any, **reading: Any
) -> Figures:
    """Measures a model that points at the answer to a question.

    Args:
        model: A `bert` with the head "answer".
        tokenizer: Its tokenizer.
        examples: JSON lines, as `QuestionAnswering` learns from.
        **reading: As in `evaluate_labels`. Half of a row that is left beside the
            longest question, at most 128 tokens, lies between two windows.

    Returns:
        `exact_match` and `f1` as SQuAD has them, from 0 to 1, `loss` and `num_rows`.

    Raises:
        ValueError: As in `evaluate_labels`.
    """
    context = measured_context(model, reading.get("context"))
    most = min(QuestionAnswering.max_question_tokens, context // 3)
    stride = min(QuestionAnswering.stride, max(1, (context - 3 - most) // 2))
    task = QuestionAnswering(stride=stride, max_question_tokens=max(1, most))
    scores, _ = _judge(task, model, tokenizer, examples, **reading)
    return scores.to_dict()


def _judge(
    task: Any,
    model: keras.Model,
    tokenizer: Any,
    examples: Any,
    context: int | None = None,
    **text_fields: Any,
) -> tuple[Scores, data.FiniteBatches]:
    """Returns the judgement of a task's own validator, and what it read."""
    context = measured_context(model, context)
    experiment = Experiment(
        model=model.config,
        task=task,
        data=data.DataConfig(
            context=context,
            batch_size=max(1, _BATCH_TOKENS // context),
            **text_fields,
        ),
    )
    experiment = task.fill_in(experiment, tokenizer, examples)
    batches = task.validation_batches(experiment, examples, tokenizer, _ALONE)
    validator = task.validator(tf.distribute.get_strategy(), model, batches)
    return validator(), batches


def _by_label(scores: Scores, labels: Sequence[str]) -> Figures:
    """Returns each label's scores, and what its examples were taken for."""
    counts = np.asarray(scores.confusion).astype(int)
    confusion = {
        label: dict(zip(labels, row.tolist(), strict=True))
        for label, row in zip(labels, counts, strict=True)
    }
    return {"labels": label_scores(counts, labels), "confusion": confusion}


def _tags(
    model: keras.Model, batches: Iterable, labels: Sequence[str]
) -> tuple[list[list[str]], list[list[str]]]:
    """Returns each row's tags as they are, and as the model has them."""
    there: list[list[str]] = []
    taken: list[list[str]] = []
    predict = tf.function(
        lambda inputs: tf.argmax(model(inputs, training=False), axis=-1),
        autograph=False,
    )
    for batch in batches:
        predicted = predict(inputs_of(model, batch)).numpy()
        for tags, found, weights in zip(
            batch["targets"], predicted, batch["weights"], strict=True
        ):
            places = np.flatnonzero(weights)
            there.append([labels[i] for i in tags[places]])
            taken.append([labels[i] for i in found[places]])
    return there, taken
