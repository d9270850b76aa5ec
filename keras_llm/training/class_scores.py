"""How well classes are told apart, from a table of what was taken for what."""

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
