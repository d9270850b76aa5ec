"""What a run can learn, one file a task."""

from keras_llm.training.task import Task
from keras_llm.training.tasks.chat import Chat
from keras_llm.training.tasks.classification import Classification
from keras_llm.training.tasks.contrastive import Contrastive
from keras_llm.training.tasks.language_model import LanguageModel
from keras_llm.training.tasks.masked_language_model import MaskedLanguageModel
from keras_llm.training.tasks.preferences import Preferences
from keras_llm.training.tasks.question_answering import QuestionAnswering
from keras_llm.training.tasks.replaced_tokens import ReplacedTokens
from keras_llm.training.tasks.sequence_to_sequence import SequenceToSequence
from keras_llm.training.tasks.span_corruption import SpanCorruption
from keras_llm.training.tasks.tagging import Tagging
from keras_llm.training.tasks.text_vae import TextVAE

# By the name in a config.
TASKS: dict[str, type[Task]] = {
    task.kind: task
    for task in (
        LanguageModel,
        Chat,
        Classification,
        Contrastive,
        MaskedLanguageModel,
        Preferences,
        QuestionAnswering,
        ReplacedTokens,
        SequenceToSequence,
        SpanCorruption,
        Tagging,
        TextVAE,
    )
}

__all__ = [
    "TASKS",
    "Chat",
    "Classification",
    "Contrastive",
    "LanguageModel",
    "MaskedLanguageModel",
    "Preferences",
    "QuestionAnswering",
    "ReplacedTokens",
    "SequenceToSequence",
    "SpanCorruption",
    "Tagging",
    "TextVAE",
]
