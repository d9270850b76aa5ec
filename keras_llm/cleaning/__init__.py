"""From text as it was found to text worth learning from.

The libraries that it needs are those of the extra `corpus`.
"""

from keras_llm.cleaning.config import CleaningConfig
from keras_llm.cleaning.duplicates import NearDuplicates, digest, signature
from keras_llm.cleaning.languages import LanguageFilter
from keras_llm.cleaning.personal_data import scrub
from keras_llm.cleaning.pipeline import CleaningReport, clean_corpus
from keras_llm.cleaning.text import clean_text, fault

__all__ = [
    "CleaningConfig",
    "CleaningReport",
    "LanguageFilter",
    "NearDuplicates",
    "clean_corpus",
    "clean_text",
    "digest",
    "fault",
    "scrub",
    "signature",
]
