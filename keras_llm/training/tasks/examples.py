"""What the tasks over labelled examples share."""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_llm import data
from keras_llm.tokenizers import EncoderRows, Rows
from keras_llm.training.replicas import Workers

CHUNK = 1_024  # Texts encoded at a time.

Arrays = dict[str, np.ndarray]

_log = logging.getLogger(__name__)


def read_splits(
    read: Callable[[Any], Iterable[data.Example]],
    train_text: Any,
    valid_text: Any,
    config: data.DataConfig,
) -> tuple[list[data.Example], list[data.Example]]:
    """Returns training and validation examples; without the latter some held back."""
    train = list(read(train_text))
    if valid_text is None:
        return data.split_examples(train, config)
    return train, list(read(valid_text))


def encoded_batches(
    read: Callable[[Any], Iterable[data.Example]],
    encode: Callable[[list[data.Example], str], Arrays],
    train_text: Any,
    valid_text: Any,
    config: data.DataConfig,
    team: Workers,
) -> tuple[data.ExampleBatches, data.ValidationExamples]:
    """Returns this worker's batches of examples that are each encoded alike.

    Args:
        read: From a source to its examples.
        encode: From examples, and which split they are in words, to arrays.
        train_text: What to learn from.
        valid_text: What to judge by; None holds a share of `train_text` back.
        config: Of the batches.
        team: The workers that share the rows.
    """
    splits = read_splits(read, train_text, valid_text, config)
    names = "training", "validation"
    train, valid = (
        encode(part, name) for part, name in zip(splits, names, strict=True)
    )
    return example_batches(train, valid, config, team)


def example_batches(
    train: Arrays, valid: Arrays, config: data.DataConfig, team: Workers
) -> tuple[data.ExampleBatches, data.ValidationExamples]:
    """Returns this worker's batches of encoded examples."""
    return (
        data.ExampleBatches(data.EncodedExamples(train), config, *team),
        validation_examples(valid, config, team),
    )


def validation_examples(
    arrays: Arrays, config: data.DataConfig, team: Workers
) -> data.ValidationExamples:
    """Returns this worker's batches of examples that a model is judged by."""
    return data.ValidationExamples(data.EncodedExamples(arrays), config, *team)


def check_head(task: Any, model: Any, head: str) -> None:
    """Raises ValueError unless a BERT has the head that a task trains."""
    if getattr(model, "head", head) != head:
        raise ValueError(
            f"The task {task.kind!r} trains a BERT with the head {head!r}. Received: "
            f"model.head={model.head!r}. Set model.head={head!r}, or change `task`."
        )


def fill_in_labels(model: Any, found: Iterable[tuple[str, str]]) -> Any:
    """Returns a model's config with its labels: those set, or all that were found.

    Args:
        model: The config.
        found: Every label with the place of its example.

    Raises:
        ValueError: A label was found that is not among those set.
    """
    if not model.labels:
        return model.replace(labels=tuple(sorted({label for label, _ in found})))
    check_known(model.labels, found, "given")
    return model


def check_known(
    labels: Sequence[str], found: Iterable[tuple[str, str]], split: str
) -> None:
    """Raises DataError if examples have a label that is not among the model's.

    Args:
        labels: The model's.
        found: Every label with the place of its example.
        split: Which examples these are, in words.
    """
    counts: Counter[str] = Counter()
    first: dict[str, str] = {}
    for label, place in found:
        counts[label] += 1
        first.setdefault(label, place)
    unknown = [label for label in counts if label not in set(labels)]
    if unknown:
        listed = ", ".join(
            f"{label!r} ({_times(counts[label])}, first at {first[label]})"
            for label in unknown
        )
        raise data.DataError(
            f"Every label of the {split} examples must be in `model.labels`. Received: "
            f"{listed[:500]}; labels in all: {counts.total()}; known are "
            f"{', '.join(map(repr, labels))[:300]}. Mend these examples, or train with "
            "some that have the label."
        )


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"


def utf8(text: str) -> bytes:
    """Returns a text's bytes; half a surrogate pair, which has none, becomes "?"."""
    return text.encode("utf-8", "replace")


def encode_texts(
    rows: EncoderRows, texts: list[str], pairs: list[str] | None, limit: int, split: str
) -> Arrays:
    """Returns texts as arrays by input name, each [N, ...], cut to `limit` tokens.

    How many were cut is logged once.
    """
    chunks = []
    for start in range(0, len(texts), CHUNK):
        part = slice(start, start + CHUNK)
        second = None if pairs is None else [*map(utf8, pairs[part])]
        encoded = rows([*map(utf8, texts[part])], second, limit=limit)
        chunks.append(Rows(*(x.numpy() for x in encoded)))
    if not chunks:
        raise data.DataError(f"Examples are needed. Received: none for {split}.")
    log_cut(split, np.concatenate([chunk.left_out for chunk in chunks]), limit)
    return {
        "token_ids": stack([chunk.token_ids for chunk in chunks]),
        "segment_ids": stack([chunk.segment_ids for chunk in chunks]),
        "lengths": np.concatenate([chunk.lengths for chunk in chunks]),
    }


def log_cut(split: str, left_out: np.ndarray, limit: int) -> None:
    """Logs how many examples were cut to `limit` tokens, if any were."""
    if (left_out > 0).any():
        _log.warning(
            "%d of %d %s examples were cut to data.context=%d tokens: %d tokens are "
            "not read.",
            (left_out > 0).sum(),
            len(left_out),
            split,
            limit,
            left_out.sum(),
        )


def count_to_padding(ids: np.ndarray) -> int:
    """Returns the tokens of rows [..., T]: padding alone is id 0 to the end.

    >>> count_to_padding(np.array([[3, 0, 5, 0], [2, 0, 0, 0]]))
    4
    """
    last = ids.shape[-1] - np.argmax(ids[..., ::-1] != 0, axis=-1)
    return int(last.sum())


def stack(matrices: list[np.ndarray]) -> np.ndarray:
    """Joins matrices row by row, each filled up with zeros to the widest."""
    width = max(matrix.shape[1] for matrix in matrices)
    return np.concatenate(
        [np.pad(m, [(0, 0), (0, width - m.shape[1])]) for m in matrices]
    )


def confusion(targets: tf.Tensor, logits: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Returns float32 [L, L]: the weight of class i that was taken for class j.

    Args:
        targets: int32 [N].
        logits: float32 [N, L].
        weights: float32 [N].
    """
    size = logits.shape[-1]
    there = tf.one_hot(targets, size) * weights[:, None]
    predicted = tf.one_hot(tf.argmax(logits, axis=-1), size)
    return tf.matmul(there, predicted, transpose_a=True)
