"""The families of checkpoints that are known, by `model_type`."""

from collections.abc import Mapping
from typing import Any

from keras_llm.convert import gemma, gpt2, llama, qwen
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
)


def family_of(values: Mapping[str, Any]) -> Family:
    """Returns the family that a config of theirs names.

    Raises:
        UnsupportedModelError: Its `model_type` or its class is not known.
    """
    known = {family.model_type: family for family in FAMILIES}
    model_type = values.get("model_type")
    if not isinstance(model_type, str) or model_type not in known:
        raise UnsupportedModelError(
            f"`model_type` must be one of {', '.join(map(repr, known))}. Received: "
            f"model_type={model_type!r}."
        )
    family = known[model_type]
    classes = (family.model_class, family.trunk_class)
    given = values.get("architectures")
    if given is not None and given not in [[name] for name in classes]:
        raise UnsupportedModelError(
            f"A checkpoint of {model_type!r} must be of the class "
            f"{' or '.join(classes)}. Received: architectures={given!r}."
        )
    return family


def family_for(config: Any) -> Family:
    """Returns the family that a config of ours is written as.

    Raises:
        UnsupportedModelError: There is none.
    """
    for family in FAMILIES:
        if family.fits(config):
            return family
    written = sorted({family.config.architecture for family in FAMILIES})
    raise UnsupportedModelError(
        f"No family of checkpoints is like this model. Written are {written}, in the "
        f"variants that {', '.join(family.model_type for family in FAMILIES)} have. "
        f"Received: {config}."
    )
