"""Which stretch of a text answers a question."""

import dataclasses

import numpy as np
import tensorflow as tf

from keras_llm import data
from keras_llm.core import checks
from keras_llm.ops import losses, spans
from keras_llm.training.answer_scores import answer_f1, exact_match
from keras_llm.training.objective import inputs_of
from keras_llm.training.task import (
    Objective,
    Task,
    check_architecture,
    fill_in_vocabulary,
)
from keras_llm.training.tasks import context_windows
from keras_llm.training.tasks import examples as examples_lib
from keras_llm.training.validation import Scores, Validator


class QuestionWindows(data.ValidationExamples):
    """Validation rows that know the questions they were cut from.

    Args:
        windows: The rows.
        config: Batch size R.
        team: Number of workers, and this one's place.
    """

    def __init__(self, windows, config, team):
        super().__init__(data.EncodedExamples(windows.arrays), config, *team)
        self.windows = windows


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuestionAnswering(Task):
    """Points at the answer, from JSON lines of a question, its context and answers.

    Each answer is {"text": ..., "start": ...}, `start` counting the characters of
    the context before it; no answer at all means that the context holds none. The
    first one is learnt, all are accepted. loss = -mean((log p(first token) +
    log p(last token)) / 2); a row without the answer points at `[cls]`.

    Source: Devlin et al. 2019, sections 4.2 and 4.3,
    https://arxiv.org/abs/1810.04805.

    >>> QuestionAnswering(stride=0)
    Traceback (most recent call last):
    ...
    ValueError: `stride` must be positive. Received: stride=0.
    """

    kind = "question_answering"

    stride: int = 128  # Tokens from one window of a long context to the next.
    max_question_tokens: int = 64  # A longer question is cut.
    max_answer_tokens: int = 30  # Of an answer that is found.

    def __post_init__(self):
        for name in ("stride", "max_question_tokens", "max_answer_tokens"):
            checks.check_positive(name, getattr(self, name))

    def texts(self, source, config):
        """Yields every context and every question."""
        for example in _read(source, config):
            yield examples_lib.utf8(example["context"])
            yield examples_lib.utf8(example["question"])

    def fill_in(self, experiment, tokenizer, train_text):
        """Returns the experiment with the vocabulary's size."""
        del train_text
        check_architecture(self, experiment.model, "bert")
        examples_lib.check_head(self, experiment.model, "answer")
        if not hasattr(tokenizer, "encode_with_offsets"):
            raise ValueError(
                "An answer is a stretch of its context, so the tokenizer must tell "
                "where each token is: one of kind 'wordpiece'. Received: "
                f"{tokenizer.kind!r}."
            )
        room = experiment.data.context - 3 - self.max_question_tokens
        if not self.stride <= room:
            raise ValueError(
                "`task.stride` must not exceed what the longest question leaves of a "
                "row, or tokens between two windows would never be read. Received: "
                f"stride={self.stride}, data.context={experiment.data.context}, "
                f"max_question_tokens={self.max_question_tokens}, which leave {room}. "
                "Lengthen the context, or shorten the others."
            )
        model = fill_in_vocabulary(experiment.model, tokenizer)
        return experiment.replace(model=model)

    def batches(self, experiment, train_text, valid_text, tokenizer, team):
        """Returns batches of windows; see `context_windows.Windows`."""
        config = experiment.data
        train, valid = examples_lib.read_splits(
            lambda source: _read(source, config), train_text, valid_text, config
        )
        learnt = self._windows(experiment, tokenizer, train, "training")
        judged = self._windows(experiment, tokenizer, valid, "validation")
        return (
            data.ExampleBatches(data.EncodedExamples(learnt.arrays), config, *team),
            QuestionWindows(judged, config, team),
        )

    def validation_batches(self, experiment, text, tokenizer, team):
        """Returns batches of windows that a model is judged by."""
        examples = list(_read(text, experiment.data))
        windows = self._windows(experiment, tokenizer, examples, "validation")
        return QuestionWindows(windows, experiment.data, team)

    def _windows(self, experiment, tokenizer, examples, split):
        if not examples:
            raise data.DataError(f"Examples are needed. Received: none for {split}.")
        most = self.max_question_tokens
        questions = context_windows.tokenize(tokenizer, examples, most)
        return context_windows.cut_windows(
            tokenizer, questions, experiment.data.context, self.stride
        )

    def objective(self, model, config, fuse=None, rows=None):
        """Returns the mean cross-entropy of an answer's first and last token.

        Raises:
            ValueError: Label smoothing, which would reward padding.
        """
        del fuse, rows
        if config.label_smoothing:
            raise ValueError(
                "An answer's ends are chosen among the tokens of its row alone, so "
                "their labels cannot be smoothed over all columns. Received: "
                f"label_smoothing={config.label_smoothing}. Set it to 0."
            )

        def summed_loss(batch, step):
            del step
            logits = model(inputs_of(model, batch), training=True)
            return tf.reduce_sum(batch["weights"] * _losses(logits, batch))

        return Objective(summed_loss)

    def validator(self, strategy, model, batches):
        """Returns the judge by exact match and F1 over the best of all windows."""
        num_rows, cut = batches.num_rows, batches.windows

        def sums(batch):
            logits = model(inputs_of(model, batch), training=False)
            weights = batch["weights"]
            found = _best(logits, batch, self.max_answer_tokens) * weights[:, None]
            return {
                "loss": tf.reduce_sum(weights * _losses(logits, batch)),
                # Every row once: the sums over all batches are the rows themselves.
                "found": tf.scatter_nd(batch["row"][:, None], found, [num_rows, 3]),
            }

        def judge(sums):
            texts = _answers(cut, sums["found"])
            pairs = [(t, q.answers) for t, q in zip(texts, cut.questions, strict=True)]
            metrics = {
                "exact_match": float(np.mean([exact_match(*pair) for pair in pairs])),
                "f1": float(np.mean([answer_f1(*pair) for pair in pairs])),
            }
            return Scores(float(sums["loss"]) / num_rows, metrics, len(pairs))

        return Validator(strategy, batches, sums, judge)

    def count_tokens(self, batch):
        """Returns the real tokens of a batch, special ones counted."""
        return int(batch["lengths"].sum())


def _losses(logits, batch):
    """Returns the loss of each row, [R]."""
    start = losses.token_losses(logits[..., 0], batch["start_targets"])
    end = losses.token_losses(logits[..., 1], batch["end_targets"])
    return 0.5 * (start + end)


def _best(logits, batch, max_length):
    """Returns each window's score, first and last token, float32 [R, 3]."""
    column = tf.range(tf.shape(logits)[1])[None] - batch["first"][:, None]
    allowed = (column >= 0) & (column < batch["size"][:, None])
    first, last, score = spans.best_span(
        logits[..., 0], logits[..., 1], allowed, max_length
    )
    score -= tf.reduce_sum(logits[:, 0], axis=-1)
    places = [tf.cast(x - batch["first"], tf.float32) for x in (first, last)]
    return tf.stack([score, *places], axis=1)


def _answers(cut, found):
    """Returns each question's answer out of its best window."""
    best = {}
    for window, (score, first, last) in zip(cut.windows, found, strict=True):
        known = best.get(window.question)
        if window.size and (known is None or score > known[0]):
            place = window.first
            best[window.question] = score, place + int(first), place + int(last)
    return [
        question.text(*best[i][1:]) if i in best else ""
        for i, question in enumerate(cut.questions)
    ]


def _check(example):
    """Raises ValueError unless every answer stands in the context where it says."""
    context = example["context"]
    for answer in example["answers"]:
        text = answer.get("text") if isinstance(answer, dict) else None
        start = answer.get("start") if isinstance(answer, dict) else None
        if not (isinstance(text, str) and text and type(start) is int and start >= 0):
            raise ValueError(
                'An answer is {"text": its characters, "start": how many characters '
                f"of the context stand before it}}. Received: {answer!r:.200}."
            )
        if context[start : start + len(text)] != text:
            raise ValueError(
                "An answer must stand in its context, at the character `start`. "
                f"Received: {text!r:.100} at {start}, where a context of "
                f"{len(context)} characters has "
                f"{context[start : start + len(text)]!r:.100}."
            )


def _read(source, config):
    members = {"question": str, "context": str, "answers": list}
    return data.read_examples(source, members, config, _check)
