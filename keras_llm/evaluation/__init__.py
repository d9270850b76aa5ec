"""Perplexity and bits per byte."""

from keras_llm.evaluation.text_loss import evaluate

__all__ = ["evaluate"]
