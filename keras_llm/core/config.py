"""Frozen, checked configs that travel as JSON and take dotted overrides."""

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping
from typing import Any, Self


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Base of every config: a frozen dataclass with JSON in and out.

    A subclass declares typed fields and checks them in `__post_init__`.
    Fields may be bool, int, float, str, None, a tuple of these, or another
    `Config`; nothing else survives the trip through JSON.

    >>> @dataclasses.dataclass(frozen=True, kw_only=True)
    ... class Point(Config):
    ...     x: int
    ...     y: float = 2.0
    >>> Point(x=1).to_dict()
    {'x': 1, 'y': 2.0}
    >>> Point.from_dict({"x": 3})
    Point(x=3, y=2.0)
    >>> Point.from_dict({"x": 3, "yy": 4})
    Traceback (most recent call last):
    ...
    ValueError: Point has no field `yy`. Did you mean `y`? Its fields are: x, y.
    """

    def to_dict(self) -> dict[str, Any]:
        """Returns a dict of plain values, ready for JSON."""
        return {
            field.name: _to_plain(getattr(self, field.name))
            for field in dataclasses.fields(self)
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Rebuilds a config; an unknown key or a wrong type is a ValueError."""
        if not isinstance(values, Mapping):
            raise ValueError(
                f"{cls.__name__} is read from a mapping of field names to values. "
                f"Received: {values!r}."
            )
        hints = typing.get_type_hints(cls)
        names = [field.name for field in dataclasses.fields(cls)]
        for key in values:
            if key not in names:
                raise ValueError(_unknown_field(cls, key, names))
        return cls(
            **{
                key: _from_plain(value, hints[key], f"{cls.__name__}.{key}")
                for key, value in values.items()
            }
        )

    def replace(self, **changes: Any) -> Self:
        """Returns a copy with some fields changed; the copy is checked again."""
        names = [field.name for field in dataclasses.fields(self)]
        for key in changes:
            if key not in names:
                raise ValueError(_unknown_field(type(self), key, names))
        return dataclasses.replace(self, **changes)


def override(config: Config, changes: Mapping[str, str]) -> Any:
    """Returns `config` with dotted fields replaced by parsed strings.

    Args:
        config: The config to start from; it is not changed.
        changes: Dotted field names to values as typed on a command line.
            Booleans are `true`/`false`, tuples are comma-separated, and `none`
            is None where the field allows it.

    Raises:
        ValueError: An unknown field (the nearest name is suggested), or a value
            that the field's type does not take.

    >>> @dataclasses.dataclass(frozen=True, kw_only=True)
    ... class Train(Config):
    ...     steps: int = 10
    >>> @dataclasses.dataclass(frozen=True, kw_only=True)
    ... class Run(Config):
    ...     train: Train = Train()
    >>> override(Run(), {"train.steps": "2_000"})
    Run(train=Train(steps=2000))
    """
    own: dict[str, Any] = {}
    nested: dict[str, dict[str, str]] = {}
    names = [field.name for field in dataclasses.fields(config)]
    hints = typing.get_type_hints(type(config))
    for dotted, text in changes.items():
        name, _, rest = dotted.partition(".")
        if name not in names:
            raise ValueError(_unknown_field(type(config), name, names))
        if not rest:
            own[name] = _parse(text, hints[name], f"{type(config).__name__}.{name}")
        elif isinstance(getattr(config, name), Config):
            nested.setdefault(name, {})[rest] = text
        else:
            raise ValueError(
                f"`{dotted}` names a field inside `{name}`, which is a plain value: "
                f"{getattr(config, name)!r}. Set `{name}` itself."
            )
    for name, inner in nested.items():
        own[name] = override(getattr(config, name), inner)
    return dataclasses.replace(config, **own)


def _unknown_field(cls: type, name: str, names: list[str]) -> str:
    nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.3)
    hint = f" Did you mean `{nearest[0]}`?" if nearest else ""
    return (
        f"{cls.__name__} has no field `{name}`.{hint} "
        f"Its fields are: {', '.join(names)}."
    )


def _to_plain(value: Any) -> Any:
    if isinstance(value, Config):
        return value.to_dict()
    if isinstance(value, (tuple, list)):
        return [_to_plain(item) for item in value]
    return value


def _alternatives(hint: Any) -> tuple[Any, ...]:
    """Returns the members of a union, or the type itself."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return typing.get_args(hint)
    return (hint,)


def _wrong_type(where: str, hint: Any, value: Any) -> ValueError:
    wanted = " or ".join(
        getattr(choice, "__name__", str(choice)) for choice in _alternatives(hint)
    )
    return ValueError(f"`{where}` must be of type {wanted}. Received: {value!r}.")


def _from_plain(value: Any, hint: Any, where: str) -> Any:
    if isinstance(value, Config) or hint is Any:
        return value
    for choice in _alternatives(hint):
        if isinstance(choice, type) and issubclass(choice, Config):
            if isinstance(value, Mapping):
                return choice.from_dict(value)
        elif typing.get_origin(choice) is tuple and isinstance(value, (list, tuple)):
            inner = typing.get_args(choice)[0]
            return tuple(_from_plain(item, inner, where) for item in value)
        elif choice is float and type(value) in (int, float):
            return float(value)
        elif choice is type(None) and value is None:
            return None
        elif isinstance(choice, type) and type(value) is choice:
            return value
    raise _wrong_type(where, hint, value)


def _parse(text: str, hint: Any, where: str) -> Any:
    for choice in _alternatives(hint):
        try:
            return _parse_one(text, choice, where)
        except ValueError:
            continue
    raise _wrong_type(where, hint, text)


def _parse_one(text: str, choice: Any, where: str) -> Any:
    if choice is type(None):
        if text.lower() == "none":
            return None
    elif choice is bool:
        if text.lower() in ("true", "false"):
            return text.lower() == "true"
    elif choice in (int, float):
        return choice(text)
    elif choice is str:
        return text
    elif typing.get_origin(choice) is tuple:
        inner = typing.get_args(choice)[0]
        return tuple(_parse(item, inner, where) for item in text.split(",") if item)
    raise ValueError(where)
