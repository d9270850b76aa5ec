"""From raw text to a served language model on TensorFlow and Keras 3.

`import keras_llm` is light: neither Keras nor TensorFlow is imported before a
sub-package that needs it is touched, as in `keras_llm.layers.LSTM`.
"""

import importlib
from types import ModuleType

__version__ = "0.1.0"

_SUB_PACKAGES = (
    "core",
    "ops",
    "tokenizers",
    "layers",
    "data",
    "cleaning",
    "models",
    "generation",
    "training",
    "evaluation",
    "convert",
    "export",
    "serving",
    "configs",
    "commands",
)

__all__ = ["__version__", *_SUB_PACKAGES]


def __getattr__(name: str) -> ModuleType:
    """Imports a sub-package the first time that it is named."""
    if name in _SUB_PACKAGES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
