"""How near an answer is to those of people, as SQuAD has it."""

import re
import string
from collections import Counter
from collections.abc import Iterable

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLE = re.compile(r"\b(?:a|an|the)\b")


def exact_match(answer: str, accepted: Iterable[str]) -> float:
    """Returns 1.0 if an answer equals an accepted one, else 0.0.

    Compared are the words: small letters, without ASCII punctuation and English
    articles. Where nothing is accepted, the right answer is "".

    Source: Rajpurkar et al. 2016, section 6.1, https://arxiv.org/abs/1606.05250.

    >>> exact_match("the whale!", ["Whale"]), exact_match("whales", ["whale"])
    (1.0, 0.0)
    """
    return float(any(_words(answer) == _words(one) for one in list(accepted) or [""]))


def answer_f1(answer: str, accepted: Iterable[str]) -> float:
    """Returns the F1 of an answer's words against the accepted answer nearest to it.

    F1 = 2 P R / (P + R), with P the share of the answer's words that are in the
    accepted one and R the converse, repeated words counted. Words are as in
    `exact_match`; where one side has none, both must have none.

    Source: Rajpurkar et al. 2016, section 6.1, https://arxiv.org/abs/1606.05250.

    >>> round(answer_f1("a great white whale", ["the whale", "Moby-Dick"]), 3)
    0.5
    """
    return max(_f1(_words(answer), _words(one)) for one in list(accepted) or [""])


def _words(text):
    return _ARTICLE.sub(" ", text.lower().translate(_PUNCTUATION)).split()


def _f1(answer, accepted):
    if not answer or not accepted:
        return float(answer == accepted)
    both = sum((Counter(answer) & Counter(accepted)).values())
    return 2 * both / (len(answer) + len(accepted))
