"""Which language a text is in, by py3langid."""

import functools
from typing import Any

_CHARACTERS = 10_000  # As many tell a language; more only take time.


class LanguageFilter:
    """Says whether a text is in one of some languages.

    A text in several is judged as a whole. A dozen words are told rightly for most
    languages, fewer often are not.

    Args:
        languages: ISO 639-1 codes.
        min_probability: What they must have together.

    Raises:
        ImportError: py3langid is not installed.
        ValueError: A language that it does not know.

    Source: Lui and Baldwin 2012, https://aclanthology.org/P12-3005.

    >>> english = LanguageFilter(("en",), 0.5)
    >>> english("Call me Ishmael. Some years ago, never mind how long precisely.")
    True
    >>> english("Il y a quelques années, peu importe combien exactement.")
    False
    """

    def __init__(self, languages: tuple[str, ...], min_probability: float):
        known = _identifier().labels
        unknown = sorted(set(languages) - set(known))
        if unknown:
            raise ValueError(
                "`languages` are codes of ISO 639-1 that can be told apart. Received: "
                f"{', '.join(unknown)}. Known are: {', '.join(sorted(known))}."
            )
        self._languages, self._min_probability = languages, min_probability

    def __call__(self, text: str) -> bool:
        """Returns whether the text is in one of the languages."""
        ranked = dict(_identifier().rank(text[:_CHARACTERS]))
        share = sum(float(ranked[language]) for language in self._languages)
        return share >= self._min_probability


@functools.cache
def _identifier() -> Any:
    """Returns the model, read once in each process."""
    try:
        from py3langid import langid
    except ImportError:
        raise ImportError(
            "Languages are told by py3langid, which is not installed: pip install "
            "'keras_llm[corpus]'."
        ) from None
    return langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True)
