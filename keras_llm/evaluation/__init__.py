"""Perplexity and bits per byte; how well classes and answers are told."""

from keras_llm.evaluation.text_loss import evaluate
from keras_llm.evaluation.text_pairs import evaluate_pairs
from keras_llm.evaluation.text_scores import BLEU_TOKENIZERS, Score, bleu, chrf, rouge
from keras_llm.training.answer_scores import answer_f1, exact_match
from keras_llm.training.class_scores import class_scores

__all__ = [
    "BLEU_TOKENIZERS",
    "Score",
    "answer_f1",
    "bleu",
    "chrf",
    "class_scores",
    "evaluate",
    "evaluate_pairs",
    "exact_match",
    "rouge",
]
