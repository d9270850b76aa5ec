"""A family of checkpoints: how its config and its tensors map to one of our models."""

import dataclasses
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, Protocol

from keras_llm.convert.weights import Weight

ANY = object()
_REQUIRED = object()
_MOST_LAYERS = 10_000

# Fields of any family that change no answer of the model: whose file it is, how it
# was first initialised, and what generation or training took by default. The
# tokenizer's files say which ids are special.
_SILENT = (
    "_name_or_path",
    "architectures",
    "bos_token_id",
    "dtype",
    "eos_token_id",
    "id2label",
    "initializer_range",
    "label2id",
    "model_type",
    "pad_token_id",
    "task_specific_params",
    "torch_dtype",
    "transformers.js_config",
    "transformers_version",
    "unk_token_id",
    "use_cache",
)


class UnsupportedModelError(ValueError):
    """A checkpoint asks for what our models do not do, or the other way around."""


class Translation(Protocol):
    """A part of the config that is read and written together."""

    def read(self, values: dict[str, Any]) -> dict[str, Any]:
        """Takes fields out of theirs and returns ours."""

    def write(self, config: Any) -> dict[str, Any]:
        """Returns their fields from our config."""


@dataclasses.dataclass(frozen=True)
class Field:
    """One field of theirs that is one field of ours.

    Attributes:
        theirs: Its name there.
        ours: Its name here.
        default: What a file that leaves it out means; left out here, it is required.
    """

    theirs: str
    ours: str
    default: Any = _REQUIRED

    def read(self, values: dict[str, Any]) -> dict[str, Any]:
        """Takes the field out of theirs."""
        if self.theirs not in values and self.default is _REQUIRED:
            raise UnsupportedModelError(
                f"The config must hold `{self.theirs}`. Received: "
                f"{', '.join(sorted(values)) or 'no fields'}."
            )
        return {self.ours: values.pop(self.theirs, self.default)}

    def write(self, config: Any) -> dict[str, Any]:
        """Returns the field as they have it."""
        return {self.theirs: getattr(config, self.ours)}


def num_layers(values: Mapping[str, Any]) -> int:
    """Returns their number of layers, where what follows makes a list of that length.

    Raises:
        UnsupportedModelError: It is no number of layers.
    """
    layers = values.get("num_hidden_layers")
    if type(layers) is not int or not 0 < layers <= _MOST_LAYERS:
        raise UnsupportedModelError(
            f"`num_hidden_layers` must lie from 1 to {_MOST_LAYERS}. "
            f"Received: {layers!r}."
        )
    return layers


@dataclasses.dataclass(frozen=True)
class Own:
    """A field that only our models have: written under our name where it is in use.

    Other libraries skip it. Without it they compute what our model computes for one
    document, without dropout.
    """

    name: str
    default: Any

    def read(self, values: dict[str, Any]) -> dict[str, Any]:
        """Takes the field out of theirs."""
        return {self.name: values.pop(self.name, self.default)}

    def write(self, config: Any) -> dict[str, Any]:
        """Returns the field, or nothing where it is not in use."""
        value = getattr(config, self.name)
        return {} if value == self.default else {self.name: value}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Family:
    """One `model_type` of Transformers, in both directions.

    Attributes:
        model_type: Its name in their config.
        model_class: Their class with the head.
        trunk_class: Their class without, if that is read too; its files leave
            `prefix` out.
        prefix: What their names of the trunk's tensors begin with.
        config: Our config class, a `core.Config`.
        fields: The parts of the config that are translated.
        always: Fields of ours that this family never varies, with their values.
        fixed: Fields of theirs that ours does not vary, with the value that says
            what ours does; any other is refused.
        silent: Fields of theirs that change no answer, with the value to write.
        obsolete: Fields that older files hold and that are not written, with the one
            value that is understood, or ANY.
        complete: Returns a config of ours with derived sizes filled in.
        weights: Returns the mapping of weights for a complete config of ours.
        copies: Tensors that a file may repeat: name to the one that it equals.
        not_weights: Pattern of what files may hold beside our weights, such as masks.
        old_endings: End of a name to what its last part is in the oldest files.
    """

    model_type: str
    model_class: str
    trunk_class: str | None
    prefix: str
    config: Any
    fields: tuple[Translation, ...]
    always: Mapping[str, Any]
    fixed: Mapping[str, Any]
    silent: Mapping[str, Any]
    obsolete: Mapping[str, Any]
    complete: Callable[[Any], Any]
    weights: Callable[[Any], list[Weight]]
    copies: Callable[[Any], Mapping[str, str]]
    not_weights: str
    old_endings: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def read_config(
        self, values: Mapping[str, Any], ignored: Collection[str] = ()
    ) -> Any:
        """Returns our config from theirs.

        Args:
            values: Their config.
            ignored: Fields that the caller knows to change nothing.

        Raises:
            UnsupportedModelError: A field is missing, unknown, or has a value that
                our model cannot represent.
            ValueError: A value of the wrong type, or sizes that do not fit.
        """
        rest = {name: value for name, value in values.items() if name not in ignored}
        for name, wanted in {**self.fixed, **self.obsolete}.items():
            value = rest.pop(name, wanted)
            # True is no 1 here, but 0 is 0.0.
            same_kind = isinstance(value, bool) == isinstance(wanted, bool)
            if not (wanted is ANY or (same_kind and value == wanted)):
                raise UnsupportedModelError(
                    f"`{name}` must be {wanted!r}: our `{self.config.architecture}` "
                    f"does nothing else. Received: {name}={value!r}."
                )
        ours = dict(self.always)
        for field in self.fields:
            try:
                ours |= field.read(rest)
            except (AttributeError, KeyError, TypeError) as error:
                raise UnsupportedModelError(
                    f"The config of a {self.model_type!r} has a field of another kind "
                    f"than is known: {type(error).__name__} {error}."
                ) from error
        for name in (*_SILENT, *self.silent):
            rest.pop(name, None)
        if rest:
            listed = ", ".join(f"{name}={value!r}" for name, value in rest.items())
            raise UnsupportedModelError(
                f"A config of {self.model_type!r} may hold only fields whose meaning "
                "is known here, since any other may change what the model computes. "
                f"Received: {listed}. If you know that they change nothing, name them "
                "as fields to ignore."
            )
        return self.config(**ours)

    def is_no_weight(self, name: str) -> bool:
        """Returns whether a tensor of that name is one that models recompute."""
        return re.fullmatch(self.not_weights, name) is not None

    def fits(self, config: Any) -> bool:
        """Returns whether a config of ours can be one of this family."""
        return isinstance(config, self.config) and all(
            getattr(config, name) == value for name, value in self.always.items()
        )

    def write_config(
        self, config: Any, dtype: str, end_id: int | None
    ) -> dict[str, Any]:
        """Returns their config from ours, in the order of the alphabet.

        Args:
            config: Ours.
            dtype: Of the tensors beside it.
            end_id: The tokenizer's id that opens documents and ends a text, if any.
        """
        theirs = {
            "architectures": [self.model_class],
            "model_type": self.model_type,
            "dtype": dtype,
            "initializer_range": 0.02,
            "use_cache": True,
            "bos_token_id": end_id,
            "eos_token_id": end_id,
            "pad_token_id": None,
            **self.fixed,
            **self.silent,
        }
        for field in self.fields:
            theirs |= field.write(self.complete(config))
        return dict(sorted(theirs.items()))
