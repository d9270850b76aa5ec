"""How near texts are to references: BLEU, chrF and ROUGE, by their usual libraries."""

from collections.abc import Sequence
from types import ModuleType
from typing import NamedTuple

from keras_llm.core import checks

# How BLEU tells words apart: as the shared tasks of WMT did, by Unicode's classes, by
# characters, Chinese characters one by one, or at white space alone.
BLEU_TOKENIZERS = ("13a", "intl", "char", "zh", "none")
_ROUGE = {"rouge1": "rouge_1", "rouge2": "rouge_2", "rougeL": "rouge_l"}


class Score(NamedTuple):
    """A score over all texts, and how it was computed.

    Attributes:
        value: From 0 to 100.
        signature: sacrebleu's own: what has to be equal where two scores are compared.
    """

    value: float
    signature: str


def bleu(
    texts: Sequence[str], references: Sequence[str], tokenizer: str = "13a"
) -> Score:
    """Returns BLEU over all texts together, one reference each.

    BLEU = 100 * min(1, exp(1 - r / h)) * (p_1 p_2 p_3 p_4) ** (1 / 4), with p_n the
    share of the texts' n-grams that are in their reference, h and r the words of all
    texts and of all references.

    Args:
        texts: What was written.
        references: What should have been.
        tokenizer: One of `BLEU_TOKENIZERS`; "zh" for Chinese.

    Raises:
        ImportError: sacrebleu is not installed.
        ValueError: No text, or not as many references; an unknown tokenizer.

    Source: Papineni et al. 2002, https://aclanthology.org/P02-1040; Post 2018,
    https://arxiv.org/abs/1804.08771.

    >>> score = bleu(["the cat sat on the mat"], ["the cat sat on a mat"])
    >>> round(score.value, 2), score.signature.split("|")[:2]
    (53.73, ['nrefs:1', 'case:mixed'])
    """
    _check_rows(texts, references)
    checks.check_choice("tokenizer", tokenizer, BLEU_TOKENIZERS)
    metric = _sacrebleu().BLEU(tokenize=tokenizer)
    return _over_all(metric, texts, references)


def chrf(texts: Sequence[str], references: Sequence[str]) -> Score:
    """Returns chrF2 over all texts together, one reference each.

    chrF2 = 100 * 5 P R / (4 P + R), with P and R the precision and the recall of the
    n-grams of characters, averaged over n from 1 to 6; spaces do not count.

    Args:
        texts: What was written.
        references: What should have been.

    Raises:
        ImportError: sacrebleu is not installed.
        ValueError: No text, or not as many references.

    Source: Popović 2015, https://aclanthology.org/W15-3049.

    >>> round(chrf(["the cat sat"], ["the cat sat on a mat"]).value, 2)
    56.61
    """
    _check_rows(texts, references)
    return _over_all(_sacrebleu().CHRF(), texts, references)


def rouge(texts: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """Returns the mean F1 of shared words, from 0 to 1, over pairs of texts.

    `rouge_1` counts words, `rouge_2` pairs of neighbours, `rouge_l` the longest common
    subsequence of words. Words are runs of ASCII letters and digits, in small letters
    and unstemmed: ROUGE is for English.

    Args:
        texts: What was written.
        references: What should have been.

    Raises:
        ImportError: rouge-score is not installed.
        ValueError: No text, or not as many references.

    Source: Lin 2004, https://aclanthology.org/W04-1013.

    >>> found = rouge(["a tool for git"], ["Git tool"])
    >>> {name: round(value, 2) for name, value in found.items()}
    {'rouge_1': 0.67, 'rouge_2': 0.0, 'rouge_l': 0.33}
    """
    _check_rows(texts, references)
    try:
        from rouge_score import rouge_scorer
    except ImportError:
        raise _missing("ROUGE", "rouge-score") from None
    scorer = rouge_scorer.RougeScorer(list(_ROUGE))
    found = [scorer.score(*pair) for pair in zip(references, texts, strict=True)]
    return {
        ours: sum(scores[theirs].fmeasure for scores in found) / len(found)
        for theirs, ours in _ROUGE.items()
    }


def _over_all(metric, texts, references) -> Score:
    score = metric.corpus_score(list(texts), [list(references)])
    return Score(float(score.score), str(metric.get_signature()))


def _sacrebleu() -> ModuleType:
    try:
        from sacrebleu import metrics
    except ImportError:
        raise _missing("BLEU and chrF", "sacrebleu") from None
    return metrics


def _missing(score: str, library: str) -> ImportError:
    return ImportError(
        f"{score} needs the library {library}. Received: an environment without it. "
        f"pip install keras_llm[metrics], or pip install {library}."
    )


def _check_rows(texts: Sequence[str], references: Sequence[str]) -> None:
    if not 0 < len(texts) == len(references):
        raise ValueError(
            "A score needs at least one text, and a reference for each. Received: "
            f"{len(texts)} texts and {len(references)} references."
        )
