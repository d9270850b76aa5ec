"""Perplexity and bits per byte; how well classes and answers are told."""

from keras_llm.evaluation.text_loss import evaluate
from keras_llm.training.answer_scores import answer_f1, exact_match
from keras_llm.training.class_scores import class_scores

__all__ = ["answer_f1", "class_scores", "evaluate", "exact_match"]
