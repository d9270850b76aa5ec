"""Types of config fields, however a config is made."""

import dataclasses

import pytest

from keras_llm.core import config


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model(config.Config):
    width: int
    dropout: float = 0.0
    sizes: tuple[int, ...] = (1, 2)

    def __post_init__(self):
        # Values are compared only once their types are right.
        if not self.width > 0:
            raise ValueError("width")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wide(Model):
    jit: bool = False
    separator: str | None = None

    def __post_init__(self):
        super().__post_init__()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run(config.Config):
    steps: int = 10
    name: str = "a"
    model: Model = Wide(width=3)


WRONG = [
    ("steps", 1.5, "`Run.steps` must be of type int. Received: 1.5."),
    ("steps", "7", "`Run.steps` must be of type int. Received: '7'."),
    ("steps", True, "`Run.steps` must be of type int. Received: True."),
    ("steps", None, "`Run.steps` must be of type int. Received: None."),
    ("name", 3, "`Run.name` must be of type str. Received: 3."),
    ("model", 3, "`Run.model` must be of type Model. Received: 3."),
    ("model", Run(), "`Run.model` must be of type Model."),
    ("model", {"width": "3"}, "`Model.width` must be of type int. Received: '3'."),
    ("model", {"width": 0}, "width"),
]


@pytest.mark.parametrize("make", [Run.from_dict, lambda v: Run(**v)])
@pytest.mark.parametrize(("name", "value", "message"), WRONG)
def test_a_wrong_type_names_field_type_and_value(make, name, value, message):
    with pytest.raises(ValueError) as error:
        make({name: value})
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    "make", [Wide.from_dict, lambda v: Wide(**v), lambda v: Wide(width=1).replace(**v)]
)
@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("width", 1e3, "int. Received: 1000.0."),
        ("dropout", True, "float. Received: True."),
        ("dropout", "0.5", "float. Received: '0.5'."),
        ("sizes", 3, "tuple[int, ...]. Received: 3."),
        ("sizes", [1, 2.5], "int. Received: 2.5."),
        ("jit", 1, "bool. Received: 1."),
        ("separator", 0, "str or None. Received: 0."),
    ],
)
def test_subclasses_check_their_types_too(make, name, value, message):
    with pytest.raises(ValueError) as error:
        make({"width": 3, name: value})
    assert str(error.value) == f"`Wide.{name}` must be of type {message}"


def test_an_int_is_taken_for_a_float_and_a_list_for_a_tuple():
    made = Wide(width=3, dropout=0, sizes=[5, 7])
    assert type(made.dropout) is float and made.sizes == (5, 7)
    assert made == Wide.from_dict(made.to_dict()) and hash(made)


@pytest.mark.parametrize(
    ("field", "text", "message"),
    [
        ("steps", "1.5", "`steps` must be of type int. Received: '1.5'."),
        ("steps", "abc", "`steps` must be of type int. Received: 'abc'."),
        ("steps", "", "`steps` must be of type int. Received: ''."),
        ("steps", "none", "`steps` must be of type int. Received: 'none'."),
        ("model", "x", "`model` must be of type Model. Received: 'x'."),
        ("model.dropout", "true", "`model.dropout` must be of type float."),
        ("model.sizes", "1,x", "`model.sizes` must be of type tuple[int, ...]."),
        ("model.jit", "1", "`model.jit` must be of type bool. Received: '1'."),
    ],
)
def test_an_override_of_a_wrong_type_is_refused(field, text, message):
    with pytest.raises(ValueError) as error:
        config.override(Run(), {field: text})
    assert str(error.value).startswith(message)


def test_none_is_none_where_text_may_stand_too():
    run = Run(model=Wide(width=3, separator="--"))
    assert config.override(run, {"model.separator": "none"}).model.separator is None
    assert config.override(run, {"name": "none"}).name == "none"


def test_what_is_missing_is_named():
    with pytest.raises(ValueError, match="no default for: width. Received: dropout."):
        Model.from_dict({"dropout": 0.5})


def test_a_field_inside_none_starts_from_the_defaults():
    """Where there are defaults for all; else the config must be there."""

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Outer(config.Config):
        run: Run | None = None
        wide: Wide | None = None

    assert config.override(Outer(), {"run.steps": "3"}).run == Run(steps=3)
    with pytest.raises(ValueError, match="Set `wide` itself"):
        config.override(Outer(), {"wide.jit": "true"})
