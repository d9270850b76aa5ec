"""How well an encoder-decoder answers sources by targets, over pairs of texts."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_llm import data
from keras_llm.core import checks
from keras_llm.evaluation import text_scores
from keras_llm.evaluation.context import measured_context
from keras_llm.generation import BeamSearch
from keras_llm.tokenizers import repair_utf8
from keras_llm.training.tasks.sequence_to_sequence import closed_rows, teacher_forcing
from keras_llm.training.tasks.target_tokens import target_validator

_BATCH_TOKENS = 8_192
_LENGTH_PENALTY = 0.6  # Of a search with several beams.
_BATCH_TEXTS = 32  # Sources answered at a time.


def evaluate_pairs(
    model: keras.Model,
    tokenizer: Any,
    examples: Any,
    context: int | None = None,
    num_beams: int = 1,
    max_new_tokens: int = 128,
    limit: int | None = None,
    bleu_tokenizer: str = "13a",
    **text_fields: Any,
) -> dict[str, Any]:
    """Measures an encoder-decoder by its loss, and by the texts that it writes.

    The loss is that of the targets' tokens, each predicted from the true ones before
    it. The texts are written from the sources alone, and compared with whole targets.

    Args:
        model: Of the architecture `t5` or `lstm_seq2seq`.
        tokenizer: Its tokenizer.
        examples: JSON lines, as `training.SequenceToSequence` learns from.
        context: Tokens that are read of a source, and of a target for the loss, an
            end token included in both; None for the model's positions, at most 1,024.
        num_beams: Beams of the search for a text; 1 takes the likeliest token always.
        max_new_tokens: Most tokens of a text, as far as the model has positions.
        limit: How many examples are read, the first; None for all.
        bleu_tokenizer: How BLEU tells words apart, as in `bleu`.
        **text_fields: Further fields of `data.TextConfig`.

    Returns:
        `nats_per_token`, `perplexity` and `num_tokens` of the targets; of the texts
        `bleu` and `chrf`, from 0 to 100, `rouge_1`, `rouge_2` and `rouge_l`, from 0 to
        1; `num_examples`; `bleu_signature` and `chrf_signature`.

    Raises:
        data.DataError: There is no example, or one without a source or a target.
        ImportError: sacrebleu or rouge-score is not installed.
        ValueError: A size is out of range.

    >>> import tempfile
    >>> from keras_llm import models, tokenizers
    >>> config = models.LSTMSeq2SeqConfig(vocab_size=257, embedding_width=3, units=2)
    >>> with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
    ...     _ = file.write('{"source": "one", "target": "un"}')
    ...     file.flush()
    ...     found = evaluate_pairs(models.build(config), tokenizers.ByteTokenizer(),
    ...         file.name, max_new_tokens=4)
    >>> found["num_tokens"], found["num_examples"]  # "u", "n" and the end.
    (3, 1)
    """
    _check_sizes(num_beams, max_new_tokens, limit)
    text_scores.bleu([""], [""], bleu_tokenizer)  # What is missing is said at once.
    text_scores.rouge([""], [""])
    context = measured_context(model, context)
    config = data.DataConfig(
        context=context, batch_size=max(1, _BATCH_TOKENS // context), **text_fields
    )
    members = {"source": str, "target": str}
    found = data.read_examples(examples, members, config)
    pairs = list(itertools.islice(found, limit))
    sources, source_lengths = _rows(pairs, "source", tokenizer, context)
    targets, lengths = _rows(pairs, "target", tokenizer, context)
    rows = {"source_ids": sources, "source_lengths": source_lengths}
    rows |= teacher_forcing(targets, lengths, model.config.start_id)
    batches = data.ValidationExamples(data.EncodedExamples(rows), config)
    loss = target_validator(tf.distribute.get_strategy(), model, batches)()
    texts = list(_texts(model, tokenizer, rows, num_beams, max_new_tokens))
    return {
        "nats_per_token": loss.loss,
        **loss.metrics,
        "num_tokens": int(lengths.sum()),
        **_scores(texts, [pair["target"] for pair in pairs], bleu_tokenizer),
        "num_examples": len(pairs),
    }


def _check_sizes(num_beams: int, max_new_tokens: int, limit: int | None) -> None:
    checks.check_positive("num_beams", num_beams)
    checks.check_positive("max_new_tokens", max_new_tokens)
    if limit is not None:
        checks.check_positive("limit", limit)


def _rows(
    pairs: Sequence[data.Example], member: str, tokenizer: Any, context: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns one side's ids, as wide as the longest, and their lengths."""
    texts = [pair[member] for pair in pairs]
    ids, lengths = closed_rows(tokenizer, texts, context, f"given {member}")
    return ids[:, : lengths.max()], lengths


def _texts(
    model: keras.Model,
    tokenizer: Any,
    rows: dict[str, np.ndarray],
    num_beams: int,
    max_new_tokens: int,
) -> Iterator[str]:
    """Yields the likeliest text found for each source."""
    search = BeamSearch(model, tokenizer)
    room = min(max_new_tokens, search.text_model.limit)

    @tf.function(reduce_retracing=True, autograph=False)
    def answer(source_ids, lengths):
        batch = tf.shape(lengths)
        found = search.search_ids(
            source_ids,
            lengths,
            tf.fill(batch, num_beams),
            tf.fill(batch, room),
            tf.fill(batch, _LENGTH_PENALTY),
        )
        ids = found["token_ids"][:, 0]
        return repair_utf8(tokenizer.decode(ids, continues=False))

    ids, lengths = rows["source_ids"], rows["source_lengths"]
    for first in range(0, len(ids), _BATCH_TEXTS):
        part = slice(first, first + _BATCH_TEXTS)
        for text in answer(tf.constant(ids[part]), tf.constant(lengths[part])).numpy():
            yield text.decode()


def _scores(
    texts: list[str], references: list[str], bleu_tokenizer: str
) -> dict[str, Any]:
    bleu = text_scores.bleu(texts, references, bleu_tokenizer)
    chrf = text_scores.chrf(texts, references)
    return {
        "bleu": bleu.value,
        "chrf": chrf.value,
        **text_scores.rouge(texts, references),
        "bleu_signature": bleu.signature,
        "chrf_signature": chrf.signature,
    }
