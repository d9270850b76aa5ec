"""Decoding: the knobs, the one loop, strings in and strings out."""

from keras_llm.generation.beam_search import Beam, BeamSearch
from keras_llm.generation.generator import Generation, Generator
from keras_llm.generation.latent_generator import LatentGenerator
from keras_llm.generation.latent_text_model import LatentTextModel
from keras_llm.generation.parameters import Parameters
from keras_llm.generation.prompt_model import PromptModel
from keras_llm.generation.sequence_to_sequence import (
    SequenceToSequence,
    make_prompt_model,
)
from keras_llm.generation.text_model import TextModel

__all__ = [
    "Beam",
    "BeamSearch",
    "Generation",
    "Generator",
    "LatentGenerator",
    "LatentTextModel",
    "Parameters",
    "PromptModel",
    "SequenceToSequence",
    "TextModel",
    "make_prompt_model",
]
