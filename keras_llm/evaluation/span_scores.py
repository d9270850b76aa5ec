"""Scores of whole spans of tags, by seqeval."""

from collections.abc import Iterable


def are_spans(labels: Iterable[str]) -> bool:
    """Says if tags mark where spans begin and go on, as "B-name", "I-name", "O" do.

    >>> are_spans(["B-name", "I-name", "O"]), are_spans(["NOUN", "O"]), are_spans("O")
    (True, False, False)
    """
    marks = {label.partition("-")[0] for label in labels}
    return "B" in marks and marks <= {"B", "I", "O"}


def span_scores(there: list[list[str]], taken: list[list[str]]) -> dict[str, float]:
    """Returns precision, recall and F1 of the spans, over all rows together.

    A span is right if its type, its beginning and its end are. An "I-name" with no
    span of its type before it begins one.

    Args:
        there: Each row's tags as they are.
        taken: As they were found.

    Raises:
        ImportError: seqeval is not installed.

    Source: Tjong Kim Sang and De Meulder 2003, https://aclanthology.org/W03-0419.
    """
    try:
        from seqeval import metrics
    except ImportError:
        raise ImportError(
            "Spans are scored by seqeval. Received: tags that mark spans, without it. "
            "pip install keras_llm[metrics], or pip install seqeval."
        ) from None
    return {
        "span_precision": float(metrics.precision_score(there, taken)),
        "span_recall": float(metrics.recall_score(there, taken)),
        "span_f1": float(metrics.f1_score(there, taken)),
    }
