import math
import sys
from collections import Counter

import pytest

from keras_llm import evaluation

TEXTS = [
    "save the file in the folder now",
    "open a new window",
    "the table has five rows and two columns of numbers",
]
REFERENCES = [
    "save the file in this folder",
    "open a new window please",
    "this table has five rows and three columns of whole numbers",
]


def ngrams(items, n):
    return Counter(tuple(items[i : i + n]) for i in range(len(items) - n + 1))


def test_bleu_is_the_paper_s_formula():
    shares, hypothesis, reference = [], 0, 0
    for n in range(1, 5):
        right = total = 0
        for text, other in zip(TEXTS, REFERENCES, strict=True):
            found = ngrams(text.split(), n)
            right += sum((found & ngrams(other.split(), n)).values())
            total += sum(found.values())
        shares.append(right / total)
    hypothesis = sum(len(text.split()) for text in TEXTS)
    reference = sum(len(text.split()) for text in REFERENCES)
    brevity = min(1.0, math.exp(1 - reference / hypothesis))
    expected = 100 * brevity * math.prod(shares) ** 0.25
    score = evaluation.bleu(TEXTS, REFERENCES)
    assert score.value == pytest.approx(expected, rel=1e-6)
    assert "tok:13a" in score.signature and "version:" in score.signature


def test_bleu_of_chinese_counts_characters():
    text, other = "床前明月光", "窗前明月光"
    # No space between them: the default finds one word, and no match.
    assert evaluation.bleu([text], [other]).value == 0
    shares = [4 / 5, 3 / 4, 2 / 3, 1 / 2]
    score = evaluation.bleu([text], [other], "zh")
    assert score.value == pytest.approx(100 * math.prod(shares) ** 0.25)


def test_chrf_is_the_paper_s_formula():
    precisions, recalls = [], []
    for n in range(1, 7):
        right = hypothesis = reference = 0
        for text, other in zip(TEXTS, REFERENCES, strict=True):
            found = ngrams(text.replace(" ", ""), n)
            wanted = ngrams(other.replace(" ", ""), n)
            right += sum((found & wanted).values())
            hypothesis += sum(found.values())
            reference += sum(wanted.values())
        precisions.append(right / hypothesis)
        recalls.append(right / reference)
    precision, recall = sum(precisions) / 6, sum(recalls) / 6
    expected = 100 * 5 * precision * recall / (4 * precision + recall)
    assert evaluation.chrf(TEXTS, REFERENCES).value == pytest.approx(expected, rel=1e-6)


def longest_common(a, b):
    if not a or not b:
        return 0
    if a[-1] == b[-1]:
        return 1 + longest_common(a[:-1], b[:-1])
    return max(longest_common(a[:-1], b), longest_common(a, b[:-1]))


def test_rouge_is_the_mean_f1():
    sums = Counter()
    for text, other in zip(TEXTS, REFERENCES, strict=True):
        a, b = text.split(), other.split()
        for name, n in (("rouge_1", 1), ("rouge_2", 2)):
            left, right = ngrams(a, n), ngrams(b, n)
            both = sum((left & right).values())
            sums[name] += 2 * both / (left.total() + right.total())
        sums["rouge_l"] += 2 * longest_common(a, b) / (len(a) + len(b))
    found = evaluation.rouge(TEXTS, REFERENCES)
    assert found == pytest.approx({name: value / 3 for name, value in sums.items()})


@pytest.mark.parametrize("score", ["bleu", "chrf", "rouge"])
def test_every_text_needs_a_reference(score):
    with pytest.raises(ValueError, match="Received: 3 texts and 2 references"):
        getattr(evaluation, score)(TEXTS, REFERENCES[:2])
    with pytest.raises(ValueError, match="Received: 0 texts"):
        getattr(evaluation, score)([], [])


@pytest.mark.parametrize(
    "score, module", [("bleu", "sacrebleu"), ("chrf", "sacrebleu"), ("rouge", "rouge")]
)
def test_a_missing_library_is_named(score, module, monkeypatch):
    for name in ("sacrebleu", "rouge_score"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=rf"{module}.*pip install"):
        getattr(evaluation, score)(TEXTS, REFERENCES)
