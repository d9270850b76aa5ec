"""Which documents of a corpus are kept, and in what form."""

import dataclasses

from keras_llm.cleaning.personal_data import KINDS
from keras_llm.core import checks
from keras_llm.core.config import Config

DUPLICATES = ("keep", "exact", "near")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CleaningConfig(Config):
    """The rules of `clean_corpus`; 0 or an empty tuple switches one off.

    >>> CleaningConfig(languages="en,fr")
    Traceback (most recent call last):
    ...
    ValueError: `CleaningConfig.languages` must be of type tuple[str, ...]. \
Received: 'en,fr'.
    """

    min_characters: int = 50  # Shorter documents are left out.
    min_letters: float = 0.5  # Least share of letters among what is no white space.
    max_repeated_lines: float = 0.3  # Largest share of lines that stood there before.
    languages: tuple[str, ...] = ()  # ISO 639-1 codes to keep; (): all.
    min_language_probability: float = 0.5  # That the document is in one of them.
    scrub: tuple[str, ...] = KINDS  # Personal data to replace by placeholders.
    duplicates: str = "near"  # "exact" compares whole texts; "keep" leaves all.
    near_similarity: float = 0.8  # Estimated Jaccard similarity of near duplicates.
    shingle_words: int = 5  # Words in a row that are compared.
    num_permutations: int = 128  # Hashes a document; more estimate more closely.
    shard_bytes: int = 2**26  # Input a part, and so about that much text a shard.
    max_document_bytes: int = 2**28  # One document is held in memory whole.

    def __post_init__(self) -> None:
        checks.check_not_negative("min_characters", self.min_characters)
        for name in (
            "min_letters",
            "max_repeated_lines",
            "min_language_probability",
            "near_similarity",
        ):
            checks.check_in_range(name, getattr(self, name), 0, 1)
        for name in ("shingle_words", "shard_bytes", "max_document_bytes"):
            checks.check_positive(name, getattr(self, name))
        checks.check_in_range("num_permutations", self.num_permutations, 16, 1_024)
        checks.check_choice("duplicates", self.duplicates, DUPLICATES)
        for kind in self.scrub:
            checks.check_choice("scrub", kind, KINDS)
