"""From one text to another: translation, summaries, answers."""

import dataclasses

import numpy as np

from keras_llm import data
from keras_llm.core import checks
from keras_llm.training.task import (
    check_architecture,
    fill_in_vocabulary,
)
from keras_llm.training.tasks import examples as examples_lib
from keras_llm.training.tasks.target_tokens import TargetTokens

ARCHITECTURES = ("t5", "lstm_seq2seq")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SequenceToSequence(TargetTokens):
    """Writes a target for a source, from JSON lines {"source": ..., "target": ...}.

    loss = -mean(log p(target[t] | target[< t], source)), over all real target tokens
    of the step, the end token included: teacher forcing. Sources are cut to
    `data.context` tokens, targets to `target_context`, an end token included in both.

    Judged by `loss` and `perplexity` of the targets' tokens.

    >>> SequenceToSequence(target_context=0)
    Traceback (most recent call last):
    ...
    ValueError: `target_context` must be positive. Received: target_context=0.
    """

    kind = "sequence_to_sequence"

    target_context: int = 128  # Tokens of a target row.

    def __post_init__(self):
        checks.check_positive("target_context", self.target_context)

    def texts(self, source, config):
        """Yields every source and every target."""
        for example in _read(source, config):
            yield examples_lib.utf8(example["source"])
            yield examples_lib.utf8(example["target"])

    def fill_in(self, experiment, tokenizer, train_text):
        """Returns the experiment with the vocabulary's size."""
        del train_text
        check_architecture(self, experiment.model, *ARCHITECTURES)
        check_target_context(self.target_context, experiment.model)
        model = fill_in_vocabulary(experiment.model, tokenizer)
        return experiment.replace(model=model)

    def batches(self, experiment, train_text, valid_text, tokenizer, team):
        """Returns batches of sources, what the decoder reads, and its targets."""
        config = experiment.data
        return examples_lib.encoded_batches(
            lambda source: _read(source, config),
            lambda *part: self._encoded(experiment, tokenizer, *part),
            train_text,
            valid_text,
            config,
            team,
        )

    def validation_batches(self, experiment, text, tokenizer, team):
        """Returns batches of examples that a model is judged by."""
        examples = list(_read(text, experiment.data))
        arrays = self._encoded(experiment, tokenizer, examples, "validation")
        return examples_lib.validation_examples(arrays, experiment.data, team)

    def _encoded(self, experiment, tokenizer, examples, split):
        sources, source_lengths = closed_rows(
            tokenizer,
            [example["source"] for example in examples],
            experiment.data.context,
            f"{split} source",
        )
        targets, lengths = closed_rows(
            tokenizer,
            [example["target"] for example in examples],
            self.target_context,
            f"{split} target",
        )
        return {
            "source_ids": sources,
            "source_lengths": source_lengths,
            **teacher_forcing(targets, lengths, experiment.model.start_id),
        }

    def count_tokens(self, batch):
        """Returns the real tokens of sources and targets."""
        return int(batch["source_lengths"].sum() + batch["weights"].sum())


def check_target_context(target_context: int, model) -> None:
    """Raises ValueError if targets may be longer than a model's positions."""
    positions = getattr(model, "max_positions", None)
    if positions is not None and not target_context <= positions:
        raise ValueError(
            "`target_context` must not exceed `model.max_positions`, the positions "
            f"that the model has. Received: target_context={target_context}, "
            f"model.max_positions={positions}."
        )


def closed_rows(
    tokenizer, texts: list[str], limit: int, split: str
) -> tuple[np.ndarray, np.ndarray]:
    """Returns texts as ids [N, limit] with an end token each, and their lengths [N].

    What is longer is cut before its end token; how many were is logged.
    """
    if not texts:
        raise data.DataError(f"Examples are needed. Received: none for {split}.")
    ids = np.zeros((len(texts), limit), np.int32)
    lengths = np.zeros(len(texts), np.int32)
    left_out = np.zeros(len(texts), np.int64)
    for start in range(0, len(texts), examples_lib.CHUNK):
        part = [examples_lib.utf8(text) for text in texts[start:][: examples_lib.CHUNK]]
        rows = tokenizer.encode(part)
        values, splits = rows.values.numpy(), rows.row_splits.numpy()
        for i in range(len(part)):
            row = values[splits[i] : splits[i + 1]]
            kept = row[: limit - 1]
            ids[start + i, : len(kept)] = kept
            ids[start + i, len(kept)] = tokenizer.end_id
            lengths[start + i] = len(kept) + 1
            left_out[start + i] = len(row) - len(kept)
    examples_lib.log_cut(split, left_out, limit)
    return ids, lengths


def teacher_forcing(
    targets: np.ndarray, lengths: np.ndarray, start_id: int
) -> dict[str, np.ndarray]:
    """Returns what a decoder reads, what it is asked for, and which places count.

    >>> made = teacher_forcing(np.array([[5, 6, 1, 0]]), np.array([3]), start_id=9)
    >>> made["token_ids"], made["weights"]
    (array([[9, 5, 6, 1]], dtype=int32), array([[1., 1., 1., 0.]], dtype=float32))
    """
    real = np.arange(targets.shape[1])[None] < lengths[:, None]
    token_ids = np.full(targets.shape, start_id, np.int32)
    token_ids[:, 1:] = targets[:, :-1]
    return {
        "token_ids": token_ids,
        "targets": targets.astype(np.int32),
        "weights": real.astype(np.float32),
    }


def _read(source, config):
    return data.read_examples(source, {"source": str, "target": str}, config)
