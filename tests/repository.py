"""A folder that looks like the repository, for commands that write beside it."""

import pathlib

ROOT = pathlib.Path(__file__).parents[1]
BOOK = "moby_dick.txt"
# Enough for the vocabularies and rows that are asked for; the whole takes a minute.
BOOK_BYTES = 200_000


def look_like_the_repository(folder: pathlib.Path) -> None:
    """Fills a folder with links to code and texts, and the beginning of the book."""
    for name in ("scripts", "keras_llm"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "testdata").mkdir()
    for path in (ROOT / "testdata").iterdir():
        if path.name != BOOK:
            (folder / "testdata" / path.name).symlink_to(path)
    text = (ROOT / "testdata" / BOOK).read_bytes()
    (folder / "testdata" / BOOK).write_bytes(text[:BOOK_BYTES].rpartition(b"\n")[0])
