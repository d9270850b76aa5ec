"""Writes docs/configuration.md: every field of an experiment, from the dataclasses.

Example: python docs/make_configuration.py
"""

import ast
import dataclasses
import inspect
import io
import itertools
import pathlib
import sys
import textwrap
import tokenize
import typing
from collections.abc import Iterator

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from keras_llm import models, training
from keras_llm.core import Config

PAGE = pathlib.Path(__file__).with_name("configuration.md")
_LINE_WIDTH = 88  # Of the source.

_HEAD = """# Configuration

A [training run](training.md) is described by one `training.Experiment`, which a config
file's `get_config()` returns. The command line sets any of its fields by the dotted
name below: `--data.batch_size=8`, `--train.clip_norm=none`. A tuple is given with
commas, a bool as `true` or `false`.

This page is made from the dataclasses by `python docs/make_configuration.py`.
"""


class Field(typing.NamedTuple):
    """A field as its class's source declares it."""

    heading: str  # A comment above it that opens a group of fields, or "".
    name: str
    type: str
    default: str
    comment: str


def page() -> str:
    """Returns the whole page in Markdown."""
    parts = [_HEAD, *_section(2, "The experiment", "", training.Experiment)]
    architectures = {name: each.config for name, each in models.ARCHITECTURES.items()}
    adapters = {
        each.__name__: each for each in (models.AdapterConfig, models.PromptConfig)
    }
    for field, choices in (
        ("adapter", adapters),
        ("task", training.TASKS),
        ("model", architectures),
    ):
        parts.append(f"## `{field}`: one of these\n")
        for name, cls in choices.items():
            parts += _section(3, f"`{name}`", f"{field}.", cls)
    return "\n".join(parts)


def _section(level: int, title: str, prefix: str, cls: type[Config]) -> Iterator[str]:
    """Yields the section of a config, and those of the configs in it."""
    yield f"{'#' * level} {title}\n"
    package = ".".join(cls.__module__.split(".")[:2])
    yield f"`{package}.{cls.__name__}`. {_prose(cls)}\n"
    parts = _declaring_classes(cls)
    for part in parts:
        if part is not cls:
            yield f"From `{part.__name__}`. {_prose(part)}\n"
        elif part is not parts[0]:
            yield "Its own:\n"
        yield _tables(prefix, _own_fields(part, cls))
    if not parts:
        yield "It has no fields.\n"
    for field, inner in _inner_configs(cls):
        yield from _section(level, f"`{prefix}{field}`", f"{prefix}{field}.", inner)


def _prose(cls: type) -> str:
    """Returns a docstring up to its examples."""
    return inspect.cleandoc(cls.__doc__ or "").partition(">>>")[0].strip()


def _declaring_classes(cls: type[Config]) -> list[type]:
    """Returns the classes that declare fields of `cls`, the first ancestor first."""
    names = {field.name for field in dataclasses.fields(cls)}
    return [
        part
        for part in reversed(cls.__mro__)
        if names & part.__dict__.get("__annotations__", {}).keys()
    ]


def _inner_configs(cls: type[Config]) -> Iterator[tuple[str, type[Config]]]:
    """Yields the fields that hold configs of one class."""
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        choices = typing.get_args(hints[field.name]) or (hints[field.name],)
        known = [c for c in choices if isinstance(c, type) and issubclass(c, Config)]
        if len(known) == 1 and known[0] not in (Config, training.Task):
            yield field.name, known[0]


def _own_fields(part: type, cls: type[Config]) -> list[Field]:
    """Returns the fields that `part` declares, with the defaults they have in `cls`."""
    source = textwrap.dedent(inspect.getsource(part))
    lines = source.splitlines()
    comments = {
        token.start[0]: token.string.lstrip("# ")
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    fields = {field.name: field for field in dataclasses.fields(cls)}
    found = []
    for node in ast.parse(source).body[0].body:  # type: ignore[attr-defined]
        if not (isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)):
            continue
        if node.target.id not in fields:  # A ClassVar.
            continue
        above, number = "", node.lineno - 1
        while lines[number - 1].lstrip().startswith("#"):
            above = f"{comments[number]} {above}".strip()
            number -= 1
        comment = comments.get(node.end_lineno or 0, "")
        # What stands above for want of room behind is the field's own.
        room = _LINE_WIDTH - len(lines[(node.end_lineno or 0) - 1]) - len("  # ")
        if not comment and len(above) > room:
            comment, above = above, ""
        found.append(
            Field(
                above,
                node.target.id,
                ast.unparse(node.annotation).replace(" | ", " or "),
                _default(node.value, fields[node.target.id], source),
                comment,
            )
        )
    return [
        # So is what stands above one field alone.
        field._replace(heading="", comment=field.heading)
        if field.heading and not field.comment and (after is None or after.heading)
        else field
        for field, after in itertools.zip_longest(found, found[1:])
    ]


def _default(value: ast.expr | None, field: dataclasses.Field, source: str) -> str:
    if value is None:
        return "required"
    if isinstance(value, ast.Name):  # A constant of the module.
        return f"`{field.default!r}`"
    return f"`{ast.get_source_segment(source, value)}`"


def _tables(prefix: str, fields: list[Field]) -> str:
    """Returns one table, or one for each group under its heading."""
    lines: list[str] = []
    for i, field in enumerate(fields):
        if i == 0 or field.heading:
            lines += ["", field.heading, ""] if field.heading else []
            lines += ["| field | type | default | |", "|---|---|---|---|"]
        comment = field.comment.replace("|", r"\|")
        lines.append(
            f"| `{prefix}{field.name}` | {field.type} | {field.default} | {comment} |"
        )
    return "\n".join(lines).strip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
