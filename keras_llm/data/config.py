"""What a run reads, and how its tokens are cut into batches."""

import dataclasses
import math

from keras_llm.core import checks
from keras_llm.core.config import Config

SAMPLINGS = ("rows", "windows", "streams")


class DataError(ValueError):
    """A corpus that cannot be used as it is; the message says what to do."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextConfig(Config):
    """How files become documents, and documents a stream of tokens.

    These fields are fixed once a corpus is prepared: a prepared folder records
    them, and reading it with others is refused.
    """

    json_field: str = "text"  # The member of each JSON line that holds its text.
    document_separator: str | None = None  # None: one plain file is one document.
    unicode_form: str = "none"  # "nfc" composes letters and accents.
    invalid_utf8: str = "error"  # "replace" puts U+FFFD for what is not UTF-8.
    add_separators: bool = True  # Each document opens with the "end" id.
    valid_fraction: float = 0.05  # Share held back when no validation text is given.
    max_unpacked_bytes: int = 16 * 2**30  # Of one .gz file: a bomb stops here.

    def __post_init__(self) -> None:
        checks.check_choice("unicode_form", self.unicode_form, ("none", "nfc"))
        checks.check_choice("invalid_utf8", self.invalid_utf8, ("error", "replace"))
        checks.check_in_range("valid_fraction", self.valid_fraction, 0, 0.9)
        checks.check_positive("max_unpacked_bytes", self.max_unpacked_bytes)
        if self.document_separator == "":
            raise ValueError(
                "`document_separator` must hold at least one character, or be None "
                "for one document a file. Received: document_separator=''."
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig(TextConfig):
    """How tokens become batches. Sizes are global: summed over all workers.

    `sampling` is one of
    - "rows": the stream is cut into consecutive rows, each seen once an epoch;
      `shuffle` permutes all of them anew in every epoch;
    - "windows": each row starts at a random offset, as small-scale references do;
    - "streams": row i of a batch goes on where row i of the batch before ended,
      for recurrent state that is carried over.
    """

    context: int = 256  # Tokens a row.
    batch_size: int = 16  # Rows a micro-batch.
    seed: int = 0  # Of the order of the rows.
    shuffle: bool = True  # Whether that order is random.
    sampling: str = "rows"  # Or "windows" or "streams"; see above.
    separate_documents: bool = True  # Attention and state stop at a separator.
    max_memory_bytes: int = 2**30  # Of raw text that is tokenised in memory.
    max_corrupt_records: int = 0  # Of a prepared corpus, left out with a warning.

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.check_positive("context", self.context)
        checks.check_positive("batch_size", self.batch_size)
        checks.check_in_range("seed", self.seed, 0, 2**63 - 1)
        checks.check_choice("sampling", self.sampling, SAMPLINGS)
        checks.check_positive("max_memory_bytes", self.max_memory_bytes)
        checks.check_not_negative("max_corrupt_records", self.max_corrupt_records)
        if self.separate_documents and not self.add_separators:
            raise ValueError(
                "`separate_documents` needs the separators that mark where documents "
                "begin. Received: separate_documents=True, add_separators=False. "
                "Set separate_documents=False or add_separators=True."
            )
        if self.shuffle and self.sampling == "streams":
            raise ValueError(
                "`sampling='streams'` reads the text in its own order. Received: "
                "shuffle=True. Set shuffle=False."
            )
        if self.sampling == "windows" and not self.shuffle:
            raise ValueError(
                "`sampling='windows'` is random by nature. Received: shuffle=False. "
                "Set shuffle=True, or sampling='rows'."
            )

    def text_config(self) -> TextConfig:
        """Returns the part that fixes the token stream."""
        return TextConfig(
            **{
                field.name: getattr(self, field.name)
                for field in dataclasses.fields(TextConfig)
            }
        )


def documents_for_hash(valid_fraction: float) -> int:
    """Returns how many documents a corpus must have to be split by hash.

    With 10 / f documents the chance that none falls into the share f is e**-10.

    >>> documents_for_hash(0.05)
    200
    """
    return math.ceil(10 / valid_fraction)
