"""Training: one step-based loop for one device, many, and many workers."""

from keras_llm.training.checkpoints import Checkpoints, RunState
from keras_llm.training.config import TokenizerConfig, TrainConfig
from keras_llm.training.config_file import load_config
from keras_llm.training.experiment import Experiment
from keras_llm.training.flops import measure_peak_flops
from keras_llm.training.interruption import EXIT_CODE, Preempted
from keras_llm.training.loop import NonFiniteError, train
from keras_llm.training.metrics import read_metrics
from keras_llm.training.optimizer import AdamW, Update
from keras_llm.training.schedule import learning_rate
from keras_llm.training.setup import make_step, train_tokenizer
from keras_llm.training.step import StepResult, TrainStep
from keras_llm.training.summary import Summary
from keras_llm.training.task import Objective, Task
from keras_llm.training.tasks import (
    TASKS,
    Classification,
    LanguageModel,
    MaskedLanguageModel,
    QuestionAnswering,
    ReplacedTokens,
    SequenceToSequence,
    SpanCorruption,
    Tagging,
    TextVAE,
)
from keras_llm.training.validation import (
    Scores,
    Validation,
    Validator,
    text_validator,
)

__all__ = [
    "AdamW",
    "Checkpoints",
    "Classification",
    "EXIT_CODE",
    "Experiment",
    "LanguageModel",
    "MaskedLanguageModel",
    "NonFiniteError",
    "Objective",
    "Preempted",
    "QuestionAnswering",
    "ReplacedTokens",
    "RunState",
    "Scores",
    "SequenceToSequence",
    "SpanCorruption",
    "StepResult",
    "Summary",
    "TASKS",
    "Tagging",
    "Task",
    "TextVAE",
    "TokenizerConfig",
    "TrainConfig",
    "TrainStep",
    "Update",
    "Validation",
    "Validator",
    "learning_rate",
    "load_config",
    "make_step",
    "measure_peak_flops",
    "read_metrics",
    "text_validator",
    "train",
    "train_tokenizer",
]
