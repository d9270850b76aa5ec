"""Which documents are held back for validation when no text is given for it."""

import dataclasses
import hashlib
import pathlib
from collections.abc import Iterable, Iterator

from keras_llm.data.config import TextConfig, documents_for_hash
from keras_llm.data.documents import (
    HASHED_BYTES,
    Piece,
    ReadCounts,
    read_pieces,
    safe_cut,
)

TRAIN = "train"
VALID = "valid"


@dataclasses.dataclass(frozen=True)
class Split:
    """One way to tell training text from validation text.

    Attributes:
        valid_fraction: Share of the documents that goes by hash, or 0.
        cut: Byte of the text where validation begins, or None.
    """

    valid_fraction: float = 0.0
    cut: int | None = None

    def route(self, pieces: Iterable[Piece]) -> Iterator[tuple[str, Piece]]:
        """Yields each piece with the part it belongs to, "train" or "valid"."""
        part, done = TRAIN, 0
        for piece in pieces:
            if self.cut is None:
                if piece.opens:
                    part = VALID if self._held_back(piece.text) else TRAIN
                yield part, piece
                continue
            place = self.cut - done
            done += len(piece.text)
            text, opens = piece.text, piece.opens
            if 0 < place < len(text):
                place = safe_cut(text, place)
                yield TRAIN, Piece(text[:place], opens)
                text, place = text[place:], 0
            if place > 0:
                yield TRAIN, Piece(text, opens)
            else:  # What goes on after the cut is a document of its own.
                yield VALID, Piece(text, opens or part == TRAIN)
                part = VALID

    def _held_back(self, text: bytes) -> bool:
        """Says if a document is for validation, by its beginning alone.

        Equal documents always fall on the same side, in every corpus: how much of
        a long one its first piece holds differs between kinds of files, so that
        no more is hashed than every first piece holds.
        """
        digest = hashlib.sha256(text[:HASHED_BYTES]).digest()
        return int.from_bytes(digest[:8], "big") < self.valid_fraction * 2**64


def choose_split(files: Iterable[pathlib.Path], config: TextConfig) -> Split:
    """Returns the split of a corpus: by hash if it has many documents, else its tail.

    Reads until there are documents enough, or everything.
    """
    fraction = config.valid_fraction
    if fraction == 0:
        return Split()
    counts = ReadCounts()
    for _ in read_pieces(files, config, counts):
        if counts.documents >= documents_for_hash(fraction):
            return Split(valid_fraction=fraction)
    return Split(cut=counts.num_bytes - int(counts.num_bytes * fraction))
