"""Which documents are held back, whatever they lie among."""

import json

import pytest

from keras_llm import data
from keras_llm.data import documents, splits

LONG = ("Call me Ishmael. " * 80_000).encode()  # 1.3 MiB: more than a piece.
EARLY = b"A title\n" + b"x" * 1_300_000  # Its only line feed is its eighth byte.


def sides(path, config):
    """Returns on which side the last document falls, for many fractions."""
    found = []
    pieces = list(documents.read_pieces([path], config, documents.ReadCounts()))
    for i in range(64):
        split = splits.Split(valid_fraction=i / 64)
        parts = [part for part, piece in split.route(pieces) if piece.opens]
        found.append(parts[-1])
    return found


@pytest.mark.parametrize("text", [LONG, EARLY])
def test_equal_long_documents_fall_on_the_same_side(tmp_path, text):
    config = data.TextConfig(document_separator="<|endoftext|>")
    found = []
    for before in (1, 940_000):  # Two ways in which the blocks of a file lie.
        path = tmp_path / f"{before}.txt"
        path.write_bytes(b"<|endoftext|>".join([b"a" * before, text, b""]))
        found.append(sides(path, config))
    lines = tmp_path / "lines.jsonl"
    lines.write_text(json.dumps({"text": text.decode()}) + "\n")
    found.append(sides(lines, data.TextConfig()))
    assert set(found[0]) == {"train", "valid"}
    assert found[0] == found[1] == found[2]
