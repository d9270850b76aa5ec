"""Questions over contexts longer than a row: windows, and answers out of them."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from keras_llm import data
from keras_llm.tokenizers import EncoderRows
from keras_llm.training.tasks.examples import Arrays, stack, utf8

_CHUNK = 1_024  # Texts, or windows, at a time.


class Question(NamedTuple):
    """A question and its context, tokenized.

    Attributes:
        asked: The question's ids, int32 [Q].
        ids: The context's, int32 [N].
        starts: The byte of the context at which each of its tokens begins, [N].
        ends: The byte behind it, [N].
        context: The context's bytes.
        answers: The accepted answers.
        span: First and last token of the first answer; None where there is none.
    """

    asked: np.ndarray
    ids: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    context: bytes
    answers: tuple[str, ...]
    span: tuple[int, int] | None

    def text(self, first: int, last: int) -> str:
        """Returns the context from one token to another."""
        return self.context[self.starts[first] : self.ends[last]].decode(
            "utf-8", "replace"
        )


class Window(NamedTuple):
    """A stretch of a context: which question's, its first token, its size."""

    question: int
    first: int
    size: int


@dataclasses.dataclass(frozen=True)
class Windows:
    """The rows of some questions.

    Attributes:
        questions: All of them.
        windows: One a row.
        arrays: `token_ids`, `segment_ids` [N, T] and `lengths` [N] of the rows;
            `first` and `size` [N], the column of the window's first token and their
            number; `start_targets` and `end_targets` [N], the columns of the answer,
            0 where the window does not hold all of it; `row` [N], counted from 0;
            `weights` [N], ones.
    """

    questions: list[Question]
    windows: list[Window]
    arrays: Arrays


def tokenize(tokenizer: Any, examples: list[data.Example], most: int) -> list[Question]:
    """Returns the examples' questions, each cut to `most` tokens."""
    questions = []
    for start in range(0, len(examples), _CHUNK):
        part = examples[start : start + _CHUNK]
        asked = tokenizer.encode([utf8(e["question"]) for e in part])
        located = tokenizer.encode_with_offsets([utf8(e["context"]) for e in part])
        rows = [_rows(x) for x in (asked, *located)]
        for example, asked_ids, ids, starts, ends in zip(part, *rows, strict=True):
            answers = tuple(a["text"] for a in example["answers"])
            span = _span(example, starts, ends) if answers else None
            context = utf8(example["context"])
            questions.append(
                Question(asked_ids[:most], ids, starts, ends, context, answers, span)
            )
    return questions


def _rows(ragged):
    return np.split(ragged.values.numpy(), ragged.row_splits.numpy()[1:-1])


def _span(example, starts, ends):
    """Returns first and last token of the first answer; None if it has none."""
    answer, context = example["answers"][0], example["context"]
    start = len(utf8(context[: answer["start"]]))
    end = start + len(utf8(answer["text"]))
    inside = np.flatnonzero((ends > start) & (starts < end))
    return (int(inside[0]), int(inside[-1])) if len(inside) else None


def cut_windows(
    tokenizer: Any, questions: list[Question], context: int, stride: int
) -> Windows:
    """Returns rows `[cls] question [sep] window [sep]` of `context` tokens at most.

    Windows begin every `stride` tokens, until one reaches the context's end.
    """
    windows, rows = [], EncoderRows(tokenizer)
    for i, question in enumerate(questions):
        room, first = context - 3 - len(question.asked), 0
        while True:
            size = min(room, len(question.ids) - first)
            windows.append(Window(i, first, size))
            if first + size >= len(question.ids):
                break
            first += stride
    arrays = _encode(rows, questions, windows)
    arrays["first"] = np.array(
        [len(questions[w.question].asked) + 2 for w in windows], "int32"
    )
    arrays["size"] = np.array([w.size for w in windows], "int32")
    targets = np.array([_targets(questions[w.question], w) for w in windows], "int32")
    arrays["start_targets"], arrays["end_targets"] = targets[:, 0], targets[:, 1]
    arrays["row"] = np.arange(len(windows), dtype="int32")
    arrays["weights"] = np.ones(len(windows), "float32")
    return Windows(questions, windows, arrays)


def _targets(question, window):
    """Returns the columns of the answer's first and last token, or of [cls]."""
    if question.span is None:
        return 0, 0
    first, last = question.span
    if not window.first <= first <= last < window.first + window.size:
        return 0, 0
    before = len(question.asked) + 2 - window.first
    return before + first, before + last


def _encode(rows, questions, windows):
    chunks = []
    for start in range(0, len(windows), _CHUNK):
        part = windows[start : start + _CHUNK]
        asked = [questions[w.question].asked for w in part]
        ids = [questions[w.question].ids[w.first : w.first + w.size] for w in part]
        made = rows.join(_ragged(asked), _ragged(ids))
        chunks.append([x.numpy() for x in made[:3]])
    token_ids, segment_ids, lengths = zip(*chunks, strict=True)
    return {
        "token_ids": stack(list(token_ids)),
        "segment_ids": stack(list(segment_ids)),
        "lengths": np.concatenate(lengths),
    }


def _ragged(rows):
    return tf.RaggedTensor.from_row_lengths(
        np.concatenate(rows).astype("int32"), np.array([len(r) for r in rows], "int64")
    )
