"""How well vectors find a text's partner among those of all texts."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_llm import data
from keras_llm.evaluation.context import measured_context
from keras_llm.tokenizers import EncoderRows
from keras_llm.training.tasks import contrastive
from keras_llm.training.tasks import examples as examples_lib

_BATCH = 32  # Texts embedded at a time.
_BLOCK = 1_024  # Texts ranked at a time.
_NEAREST = 10


def evaluate_retrieval(
    model: keras.Model,
    tokenizer: Any,
    examples: Any,
    context: int | None = None,
    **text_fields: Any,
) -> dict[str, Any]:
    r"""Measures an encoder's vectors by search: pairs of a text and what it asks for.

    Each text ranks every different partner of all pairs by the cosine of their vectors;
    one that is exactly as near as its own counts as nearer.

    Args:
        model: A `bert` with the head "embed".
        tokenizer: Its tokenizer.
        examples: JSON lines, as `training.Contrastive` learns from.
        context: Tokens that are read of a text; None for the model's positions.
        **text_fields: Further fields of `data.TextConfig`.

    Returns:
        `recall_at_1` and `recall_at_10`, the share of texts whose own partner is the
        nearest, or among the ten nearest; `mrr`, the mean of 1 / rank; `num_rows` and
        `num_candidates`, the texts and the different partners.

    Raises:
        data.DataError: There is no example, or one without either text.
        ValueError: Vectors that are not finite, or a context beyond the positions.

    Source of the measures: Manning, Raghavan and Schütze 2008, chapter 8.

    >>> import tempfile
    >>> from keras_llm import models, tokenizers
    >>> special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    >>> words = tokenizers.WordPieceTokenizer([*special, "whale", "sea"])
    >>> model = models.build(models.BertConfig(
    ...     vocab_size=7, width=8, num_layers=1, num_heads=2, head="embed"))
    >>> with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
    ...     for word in ("whale", "sea"):
    ...         _ = file.write(f'{{"text": "{word}", "text_pair": "{word}"}}\n')
    ...     file.flush()
    ...     evaluate_retrieval(model, words, file.name)["recall_at_1"]
    1.0
    """
    context = measured_context(model, context)
    pairs = [*contrastive.read_pairs(examples, data.TextConfig(**text_fields))]
    different = dict.fromkeys(example["text_pair"] for example in pairs)
    partners = {text: number for number, text in enumerate(different)}
    texts = [example["text"] for example in pairs]
    encode = EncoderRows(tokenizer)
    asking, asked_for = (
        _unit_vectors(model, examples_lib.encode_texts(encode, side, None, context, at))
        for side, at in ((texts, "evaluated"), ([*partners], "evaluated partners'"))
    )
    ranks = _ranks(asking, asked_for, [partners[e["text_pair"]] for e in pairs])
    return {
        "recall_at_1": float((ranks == 1).mean()),
        "recall_at_10": float((ranks <= _NEAREST).mean()),
        "mrr": float((1 / ranks).mean()),
        "num_rows": len(texts),
        "num_candidates": len(partners),
    }


def _unit_vectors(model: keras.Model, rows: dict[str, np.ndarray]) -> np.ndarray:
    """Returns vectors of length 1, float32 [N, D]; rows of like length go together."""
    embed = tf.function(
        lambda inputs: contrastive.unit_vectors(model, inputs, training=False),
        autograph=False,
        reduce_retracing=True,
    )
    order = np.argsort(rows["lengths"], kind="stable")
    parts = []
    for start in range(0, len(order), _BATCH):
        batch = {name: x[order[start : start + _BATCH]] for name, x in rows.items()}
        longest = batch["lengths"].max()
        cut = {n: x[:, :longest] if x.ndim == 2 else x for n, x in batch.items()}
        parts.append(embed({n: tf.constant(x) for n, x in cut.items()}).numpy())
    vectors = np.concatenate(parts)
    if not np.isfinite(vectors).all():
        raise ValueError(
            "Vectors must be finite. Received: NaN or infinity in those of "
            f"{(~np.isfinite(vectors).all(axis=1)).sum()} of {len(vectors)} texts: the "
            "weights hold such, or overflow. Evaluate an earlier model."
        )
    found = np.empty_like(vectors)
    found[order] = vectors
    return found


def _ranks(asking: np.ndarray, asked_for: np.ndarray, own: Sequence[int]) -> np.ndarray:
    """Returns int64 [N]: the place, from 1, of each text's own partner by cosine.

    What is as near stands before it, or vectors that are all alike would be perfect.
    """
    ranks = []
    for start in range(0, len(asking), _BLOCK):
        scores = asking[start : start + _BLOCK] @ asked_for.T
        mine = np.asarray(own[start : start + _BLOCK])
        reached = scores[np.arange(len(scores)), mine]
        ranks.append((scores >= reached[:, None]).sum(axis=1))
    return np.concatenate(ranks)
