"""One SavedModel, strings in and strings out, that stock TF Serving runs."""

from keras_llm.export.language_model import LanguageModelServable
from keras_llm.export.servable import Servable
from keras_llm.export.servables import SERVABLES, servable
from keras_llm.export.verify import VerificationError, verify
from keras_llm.export.writer import DTYPES, export, from_model_folder

__all__ = [
    "DTYPES",
    "LanguageModelServable",
    "SERVABLES",
    "Servable",
    "VerificationError",
    "export",
    "from_model_folder",
    "servable",
    "verify",
]
