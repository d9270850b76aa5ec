"""What a run can learn, one file a task."""

from keras_llm.training.task import Task
from keras_llm.training.tasks.classification import Classification
from keras_llm.training.tasks.language_model import LanguageModel
from keras_llm.training.tasks.question_answering import QuestionAnswering
from keras_llm.training.tasks.tagging import Tagging

# By the name in a config.
TASKS: dict[str, type[Task]] = {
    task.kind: task
    for task in (LanguageModel, Classification, Tagging, QuestionAnswering)
}

__all__ = ["TASKS", "Classification", "LanguageModel", "QuestionAnswering", "Tagging"]
