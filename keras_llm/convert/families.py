"""The families of checkpoints that are known, by `model_type`."""

from collections.abc import Mapping
from typing import Any

from keras_llm.convert import bert, electra, gemma, gpt2, llama, qwen, t5
from keras_llm.convert.family import Family, UnsupportedModelError

# Where a config of ours fits several, the first is written.
FAMILIES: tuple[Family, ...] = (
    gpt2.FAMILY,
    llama.LLAMA,
    llama.MISTRAL,
    qwen.QWEN2,
    qwen.QWEN3,
    gemma.GEMMA,
    gemma.GEMMA2,
    t5.FAMILY,
    *bert.FAMILIES,
    *electra.FAMILIES,
)


def family_of(values: Mapping[str, Any]) -> Family:
    """Returns the family that a config of theirs names.

    Raises:
        UnsupportedModelError: Its `model_type` or its class is not known.
    """
    model_type, given = values.get("model_type"), values.get("architectures")
    named = [family for family in FAMILIES if family.model_type == model_type]
    if not named:
        known = dict.fromkeys(family.model_type for family in FAMILIES)
        raise UnsupportedModelError(
            f"`model_type` must be one of {', '.join(map(repr, known))}. Received: "
            f"model_type={model_type!r}."
        )
    if given is None and len(named) == 1:
        return named[0]
    for family in named:
        if given in ([family.model_class], [family.trunk_class]):
            return family
    classes = [
        name for each in named for name in (each.model_class, each.trunk_class) if name
    ]
    raise UnsupportedModelError(
        f"A checkpoint of {model_type!r} must be of the class {' or '.join(classes)}. "
        f"Received: architectures={given!r}."
    )


def family_for(config: Any) -> Family:
    """Returns the family that a config of ours is written as.

    Raises:
        UnsupportedModelError: There is none.
    """
    for family in FAMILIES:
        if family.fits(config):
            return family
    written = sorted({family.config.architecture for family in FAMILIES})
    kinds = dict.fromkeys(family.model_type for family in FAMILIES)
    raise UnsupportedModelError(
        f"No family of checkpoints is like this model. Written are {written}, in the "
        f"variants that {', '.join(kinds)} have. "
        f"Received: {config}."
    )
