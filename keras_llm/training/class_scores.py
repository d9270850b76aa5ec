"""How well classes are told apart, from a table of what was taken for what."""

from collections.abc import Sequence

import numpy as np


def class_scores(confusion: np.ndarray) -> dict[str, float]:
    """Returns accuracy and macro F1.

    accuracy = correct / all. F1 of a class = 2 TP / (2 TP + FP + FN), the harmonic
    mean of precision and recall; macro F1 is its mean over the classes that were
    there or were predicted, each counting alike. Both are 0 where nothing was judged.

    Args:
        confusion: [L, L], how many of class i were taken for class j.

    >>> class_scores(np.array([[3, 1, 0], [0, 2, 0], [0, 0, 0]]))
    {'accuracy': 0.8333333333333334, 'macro_f1': 0.8285714285714285}
    """
    confusion = np.asarray(confusion, "float64")
    right = np.diagonal(confusion)
    seen = confusion.sum(axis=0) + confusion.sum(axis=1)  # 2 TP + FP + FN.
    total = confusion.sum()
    f1 = 2 * right[seen > 0] / seen[seen > 0]
    return {
        "accuracy": float(right.sum() / total) if total else 0.0,
        "macro_f1": float(f1.mean()) if total else 0.0,
    }


def label_scores(
    confusion: np.ndarray, labels: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Returns each class's precision, recall, F1, and how many of it there are.

    precision = TP / (TP + FP), recall = TP / (TP + FN), F1 as in `class_scores`; each
    is 0 where it has no base.

    Args:
        confusion: [L, L], how many of class i were taken for class j.
        labels: The names of the classes.

    >>> scores = label_scores(np.array([[3, 1], [0, 2]]), ("bad", "good"))
    >>> scores["bad"]
    {'precision': 1.0, 'recall': 0.75, 'f1': 0.8571428571428571, 'support': 4}
    """
    confusion = np.asarray(confusion)
    right, there = np.diagonal(confusion), confusion.sum(axis=1)
    taken = confusion.sum(axis=0)
    return {
        label: {
            "precision": float(right[i] / max(1, taken[i])),
            "recall": float(right[i] / max(1, there[i])),
            "f1": float(2 * right[i] / max(1, there[i] + taken[i])),
            "support": int(there[i]),
        }
        for i, label in enumerate(labels)
    }
