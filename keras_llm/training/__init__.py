"""Training: one step-based loop for one device, many, and many workers."""

from keras_llm.core import read_metrics
from keras_llm.training.agreement import (
    LOST_WORKER,
    Agreement,
    LostWorkerError,
    OtherWorkerError,
)
from keras_llm.training.checkpoints import Checkpoints, RunState
from keras_llm.training.config import ParameterGroup, TokenizerConfig, TrainConfig
from keras_llm.training.config_file import load_config
from keras_llm.training.experiment import Experiment
from keras_llm.training.finiteness import NonFiniteError
from keras_llm.training.flops import measure_peak_flops
from keras_llm.training.interruption import EXIT_CODE, Preempted
from keras_llm.training.loop import train
from keras_llm.training.optimizer import Optimizer, Update
from keras_llm.training.plan import Plan, measure_step, plan, prepare_plan
from keras_llm.training.replicas import Workers, workers
from keras_llm.training.schedule import learning_rate
from keras_llm.training.setup import make_step, train_tokenizer
from keras_llm.training.step import StepResult, TrainStep
from keras_llm.training.strategies import STRATEGIES, choose_strategy
from keras_llm.training.summary import Summary
from keras_llm.training.task import Objective, Task
from keras_llm.training.tasks import (
    TASKS,
    Chat,
    Classification,
    Contrastive,
    LanguageModel,
    MaskedLanguageModel,
    Preferences,
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
    "Agreement",
    "Checkpoints",
    "Chat",
    "Classification",
    "Contrastive",
    "EXIT_CODE",
    "Experiment",
    "LOST_WORKER",
    "LanguageModel",
    "LostWorkerError",
    "MaskedLanguageModel",
    "Preferences",
    "NonFiniteError",
    "Objective",
    "Optimizer",
    "OtherWorkerError",
    "ParameterGroup",
    "Plan",
    "Preempted",
    "QuestionAnswering",
    "ReplacedTokens",
    "RunState",
    "STRATEGIES",
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
    "Workers",
    "choose_strategy",
    "learning_rate",
    "load_config",
    "make_step",
    "measure_peak_flops",
    "measure_step",
    "plan",
    "prepare_plan",
    "read_metrics",
    "text_validator",
    "train",
    "train_tokenizer",
    "workers",
]
