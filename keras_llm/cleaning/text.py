"""One document's text put in order, and whether it reads like text at all."""

import functools
import re
from collections.abc import Callable
from typing import Any

from keras_llm.cleaning.config import CleaningConfig

_INVISIBLE = dict.fromkeys(map(ord, "\u00ad\u200b\u2060\ufeff"))
_BLANK_LINES = re.compile(r"\n{4,}")


def clean_text(text: str) -> str:
    r"""Returns the text in order, its wording untouched.

    Wrongly decoded letters are mended, HTML's entities read (where no tag stands),
    control characters, terminal codes, soft hyphens and spaces of no width removed,
    line ends made `\n`, letters composed (NFC): by ftfy, without its changes to quotes,
    ligatures and wide letters. Spaces at the ends of lines go, and of more than two
    blank lines two stay.

    Raises:
        ImportError: ftfy is not installed.

    >>> clean_text("Itâ€™s  \r\nR&amp;B\x00\n\n\n\n\nnow ")
    'It’s\nR&B\n\n\nnow'
    """
    fix_text, settings = _ftfy()
    text = fix_text(text, settings).translate(_INVISIBLE)
    lines = [line.rstrip(" \t") for line in text.split("\n")]
    return _BLANK_LINES.sub("\n\n\n", "\n".join(lines)).strip("\n")


def fault(text: str, config: CleaningConfig) -> str | None:
    """Returns why a document is left out, or None.

    - "short": fewer characters than `min_characters`;
    - "symbols": letters are a smaller share of it, white space apart, than
      `min_letters`: tables of numbers, drawings, code dumps;
    - "repetition": of its lines that hold something a larger share stood there before
      than `max_repeated_lines`.

    Source: Rae et al. 2021, appendix A.1.1, https://arxiv.org/abs/2112.11446.

    >>> fault("== 12 == 13 == 14 ==", CleaningConfig(min_characters=5))
    'symbols'
    """
    if len(text) < config.min_characters or not text.strip():
        return "short"
    words = text.split()
    letters = sum(map(str.isalpha, "".join(words)))
    if letters < config.min_letters * sum(map(len, words)):
        return "symbols"
    lines = [stripped for line in text.split("\n") if (stripped := line.strip())]
    repeated = len(lines) - len(set(lines))
    if config.max_repeated_lines and repeated > config.max_repeated_lines * len(lines):
        return "repetition"
    return None


@functools.cache
def _ftfy() -> tuple[Callable[..., str], Any]:
    """Returns ftfy's function and its settings."""
    try:
        import ftfy
    except ImportError:
        raise ImportError(
            "Text is put in order by ftfy, which is not installed: pip install "
            "'keras_llm[corpus]'."
        ) from None
    return ftfy.fix_text, ftfy.TextFixerConfig(
        explain=False,
        normalization="NFC",
        uncurl_quotes=False,
        fix_latin_ligatures=False,
        fix_character_width=False,
    )
