"""What a model is worth: losses over texts, scores over labelled examples."""

from keras_llm.evaluation.labelled_examples import (
    evaluate_answers,
    evaluate_labels,
    evaluate_tags,
)
from keras_llm.evaluation.latent_model import evaluate_latent
from keras_llm.evaluation.masked_text import evaluate_masked
from keras_llm.evaluation.retrieval import evaluate_retrieval
from keras_llm.evaluation.span_scores import span_scores
from keras_llm.evaluation.text_loss import evaluate
from keras_llm.evaluation.text_pairs import evaluate_pairs
from keras_llm.evaluation.text_scores import BLEU_TOKENIZERS, Score, bleu, chrf, rouge
from keras_llm.training.answer_scores import answer_f1, exact_match
from keras_llm.training.class_scores import class_scores, label_scores

__all__ = [
    "BLEU_TOKENIZERS",
    "Score",
    "answer_f1",
    "bleu",
    "chrf",
    "class_scores",
    "evaluate",
    "evaluate_answers",
    "evaluate_labels",
    "evaluate_latent",
    "evaluate_masked",
    "evaluate_pairs",
    "evaluate_retrieval",
    "evaluate_tags",
    "exact_match",
    "label_scores",
    "rouge",
    "span_scores",
]
