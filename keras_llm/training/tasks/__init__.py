"""What a run can learn, one file a task."""

from keras_llm.training.task import Task
from keras_llm.training.tasks.language_model import LanguageModel

# By the name in a config.
TASKS: dict[str, type[Task]] = {task.kind: task for task in (LanguageModel,)}

__all__ = ["TASKS", "LanguageModel"]
