"""Labelled or paired examples out of JSON lines."""

import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from keras_llm.data.config import DataConfig, DataError, TextConfig
from keras_llm.data.documents import JSON_LINES, parse_line, read_lines
from keras_llm.data.sources import Patterns, find_files, text_blocks

Example = dict[str, Any]


class LocatedExample(dict[str, Any]):
    """An example that knows where it stands.

    Attributes:
        where: Its file and line, as "reviews.jsonl:3".
    """

    def __init__(self, members: Mapping[str, Any], where: str):
        super().__init__(members)
        self.where = where


def place_of(example: Example) -> str:
    """Returns the file and line of an example that was read, or "an example".

    >>> place_of(LocatedExample({"text": "a"}, "reviews.jsonl:3"))
    'reviews.jsonl:3'
    """
    return getattr(example, "where", "an example")


def read_examples(
    patterns: Patterns,
    members: Mapping[str, type],
    config: TextConfig | None = None,
    check: Callable[[Example], None] | None = None,
) -> Iterator[Example]:
    """Yields the objects of JSON lines, each with the members asked for.

    Args:
        patterns: `.jsonl` files, folders or globs; a further suffix `.gz` unpacks.
        members: Name to type of what every object must hold, such as
            `{"text": str, "label": str}`. Whatever else it holds is kept too.
        config: How bytes become text; the default refuses what is not UTF-8.
        check: Raises a ValueError about an example that cannot be used.

    Raises:
        DataError: No such file, not JSON lines, an object without a member or with
            one of another type, or what `check` raised; the message names file and
            line.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
    ...     _ = file.write('{"text": "good", "label": "positive"}')
    ...     file.flush()
    ...     list(read_examples(file.name, {"text": str}))
    [{'text': 'good', 'label': 'positive'}]
    """
    config = config or TextConfig()
    for path in find_files(patterns):
        if not set(path.suffixes) & set(JSON_LINES):
            raise DataError(
                "Examples are read from JSON lines, one object a line. Received: "
                f"{path}. Name the file .jsonl if that is what it holds."
            )
        for number, line in read_lines(path, text_blocks(path, config)):
            if line.strip():
                example = _checked(path, number, line, members)
                if check is not None:
                    _check(check, example, f"{path}:{number}")
                yield LocatedExample(example, f"{path}:{number}")


def _check(check: Callable[[Example], None], example: Example, where: str) -> None:
    try:
        check(example)
    except ValueError as error:
        raise DataError(f"{error} It stands at {where}.") from None


def _checked(
    path: pathlib.Path, number: int, line: bytes, members: Mapping[str, type]
) -> Example:
    where, value = f"{path}:{number}", parse_line(path, number, line)
    if not isinstance(value, dict):
        shown = line[:100].decode("utf-8", "replace").strip()
        raise DataError(
            f"Every line must be an object. Received at {where}: {shown}. Repair or "
            "remove the line."
        )
    for name, kind in members.items():
        if not isinstance(value.get(name), kind):
            held = repr(value[name])[:100] if name in value else "no such member"
            raise DataError(
                f"Every example must hold {name!r}, a {kind.__name__}. Received at "
                f"{where}: {held}; its members are "
                f"{', '.join(map(repr, value))[:200] or 'none'}. Repair or remove the "
                "line."
            )
    return value


def split_examples(
    examples: list[Example], config: DataConfig
) -> tuple[list[Example], list[Example]]:
    """Returns (training examples, validation examples): a share is held back.

    Every k-th example, k = 1 / `config.valid_fraction` rounded, is held back, so
    that a file sorted by label is split evenly.

    Raises:
        DataError: Nothing can be held back.
    """
    if config.valid_fraction == 0:
        raise DataError(
            "Validation examples are needed. Received: none, and valid_fraction=0. "
            "Give some, or a `valid_fraction` above 0."
        )
    every = max(2, round(1 / config.valid_fraction))
    valid = examples[every - 1 :: every]
    if not valid:
        raise DataError(
            f"With valid_fraction={config.valid_fraction} one example of {every} is "
            f"held back. Received: {len(examples)} examples. Give more, or validation "
            "examples of their own."
        )
    train = [example for i, example in enumerate(examples) if (i + 1) % every]
    return train, valid
