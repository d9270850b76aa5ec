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

    A subclass declares typed fields and checks their values in `__post_init__`;
    the types are checked before that, however the config was made. Fields may be
    bool, int, float, str, None, a tuple of these, or another `Config`; nothing else
    survives the trip through JSON. An int is taken for a float, a list for a tuple.

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
    >>> Point(x=1.5)
    Traceback (most recent call last):
    ...
    ValueError: `Point.x` must be of type int. Received: 1.5.
    """

    def __init_subclass__(cls, **options):
        """Puts the check of types before the subclass's own `__post_init__`."""
        super().__init_subclass__(**options)
        check_values = cls.__dict__.get("__post_init__")
        if check_values is not None:

            def __post_init__(self):
                Config.__post_init__(self)
                check_values(self)

            cls.__post_init__ = __post_init__

    def __post_init__(self) -> None:
        """Gives every field its declared type, or raises a ValueError."""
        hints = typing.get_type_hints(type(self))
        for field in dataclasses.fields(self):
            where = f"{type(self).__name__}.{field.name}"
            value = _typed(getattr(self, field.name), hints[field.name], where)
            object.__setattr__(self, field.name, value)  # The class is frozen.

    def to_dict(self) -> dict[str, Any]:
        """Returns a dict of plain values, ready for JSON."""
        return {
            field.name: _to_plain(getattr(self, field.name))
            for field in dataclasses.fields(self)
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Rebuilds a config; an unknown or missing key is a ValueError."""
        if not isinstance(values, Mapping):
            raise ValueError(
                f"{cls.__name__} is read from a mapping of field names to values. "
                f"Received: {values!r}."
            )
        names = [field.name for field in dataclasses.fields(cls)]
        for key in values:
            if key not in names:
                raise ValueError(_unknown_field(cls, key, names))
        missing = [
            field.name
            for field in dataclasses.fields(cls)
            if field.default is dataclasses.MISSING and field.name not in values
        ]
        if missing:
            raise ValueError(
                f"{cls.__name__} has no default for: {', '.join(missing)}. Received: "
                f"{', '.join(map(str, values)) or 'no fields'}. Add what is missing."
            )
        return cls(**values)

    def replace(self, **changes: Any) -> Self:
        """Returns a copy with some fields changed; the copy is checked again."""
        names = [field.name for field in dataclasses.fields(self)]
        for key in changes:
            if key not in names:
                raise ValueError(_unknown_field(type(self), key, names))
        return dataclasses.replace(self, **changes)


def override(config: Config, changes: Mapping[str, str], section: str = "") -> Any:
    """Returns `config` with dotted fields replaced by parsed strings.

    Args:
        config: The config to start from; it is not changed.
        changes: Dotted field names to values as typed on a command line.
            Booleans are `true`/`false`, tuples are comma-separated, and `none`
            is None where the field allows it. A field inside a config that is None
            starts from that config's defaults.
        section: What the names in a message begin with, such as "train.".

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
            own[name] = _parse(text, hints[name], section + name)
        elif isinstance(_current(config, name, hints[name]), Config):
            nested.setdefault(name, {})[rest] = text
        else:
            raise ValueError(
                f"`{section}{dotted}` names a field inside `{section}{name}`, which is "
                f"a plain value: {getattr(config, name)!r}. Set `{section}{name}` "
                "itself."
            )
    for name, inner in nested.items():
        current = _current(config, name, hints[name], inner)
        own[name] = override(current, inner, f"{section}{name}.")
    return dataclasses.replace(config, **own)


def _current(
    config: Config, name: str, hint: Any, given: Mapping[str, str] | None = None
) -> Any:
    """Returns a field's value; of one that is None the defaults, if it has them all.

    Of several configs it takes the one of the `kind` that is given, or else the first
    that has the fields that are.
    """
    value = getattr(config, name)
    if value is not None:
        return value
    given = given or {}
    choices = [choice() for choice in _alternatives(hint) if _has_defaults(choice)]
    fitting = [choice for choice in choices if all(hasattr(choice, n) for n in given)]
    kind = given.get("kind", "")
    named = [choice for choice in fitting if kind and kind == choice.kind]
    return next(iter(named or fitting or choices), None)


def _has_defaults(choice: Any) -> bool:
    """Whether a type is a config of which every field has a default."""
    return (
        isinstance(choice, type)
        and issubclass(choice, Config)
        and all(
            f.default is not dataclasses.MISSING for f in dataclasses.fields(choice)
        )
    )


def flattened(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns the values of nested mappings by their dotted names.

    >>> flattened({"train": {"steps": 10}, "seed": 0})
    {'train.steps': 10, 'seed': 0}
    """
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat.update(flattened(value, f"{prefix}{name}."))
        else:
            flat[prefix + name] = value
    return flat


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
    wanted = " or ".join(map(_type_name, _alternatives(hint)))
    return ValueError(f"`{where}` must be of type {wanted}. Received: {value!r}.")


def _type_name(choice: Any) -> str:
    if choice is type(None):
        return "None"
    return choice.__name__ if isinstance(choice, type) else str(choice)


def _typed(value: Any, hint: Any, where: str) -> Any:
    """Returns `value` as a value of the type `hint`, or raises a ValueError."""
    if hint is Any:
        return value
    for choice in _alternatives(hint):
        if typing.get_origin(choice) is tuple:
            if isinstance(value, (list, tuple)):
                inner = typing.get_args(choice)[0]
                return tuple(_typed(item, inner, where) for item in value)
        elif issubclass(choice, Config) and isinstance(value, Mapping):
            return choice.from_dict(value)
        elif issubclass(choice, Config) and isinstance(value, choice):
            return value
        elif choice is float and type(value) is not bool:
            if isinstance(value, (int, float)):
                return float(value)
        elif type(value) is choice:
            return value
    raise _wrong_type(where, hint, value)


def _parse(text: str, hint: Any, where: str) -> Any:
    choices = _alternatives(hint)
    # None comes first: taken for a string, "none" would be text like any other.
    for choice in sorted(choices, key=lambda choice: choice is not type(None)):
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
