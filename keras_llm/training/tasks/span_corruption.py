"""T5's pre-training: spans of a text are cut out and written back."""

import dataclasses

from keras_llm import data
from keras_llm.data import span_corruption
from keras_llm.training.task import (
    check_architecture,
    fill_in_vocabulary,
)
from keras_llm.training.tasks.sequence_to_sequence import ARCHITECTURES
from keras_llm.training.tasks.target_tokens import TargetTokens

# The same spans at every evaluation of every run.
_VALIDATION_SEED = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpanCorruption(TargetTokens):
    """Writes back the spans that were cut out of a text.

    loss = -mean(log p(target[t] | target[< t], source)), over all target tokens of the
    step. A row of text is as long as its source, with sentinels for the spans, fits
    into `data.context` ids; spans are drawn anew each time that a row is seen, as in
    `data.SpanCorruption`. The last row of a text, if it is not full, is not judged.

    Judged by `loss` and `perplexity` of the targets' tokens.

    Source: Raffel et al. 2020, section 3.1.4, https://arxiv.org/abs/1910.10683.

    >>> SpanCorruption(rate=0.0)
    Traceback (most recent call last):
    ...
    ValueError: `rate` must be above 0 and below 1, `mean_length` at least 1. \
Received: rate=0.0, mean_length=3.0.
    """

    kind = "span_corruption"

    rate: float = 0.15  # Share of a row's ids that is cut out.
    mean_length: float = 3.0  # Mean ids of a span.

    def __post_init__(self):
        span_corruption.spans(2, self.rate, self.mean_length)

    def fill_in(self, experiment, tokenizer, train_text):
        """Returns the experiment with the vocabulary's size."""
        del train_text
        check_architecture(self, experiment.model, *ARCHITECTURES)
        if experiment.data.separate_documents:
            raise ValueError(
                'A row of text goes on from one document to the next, with the "end" '
                "id between them. Received: data.separate_documents=True. Set "
                "data.separate_documents=False."
            )
        model = fill_in_vocabulary(experiment.model, tokenizer)
        self._corruption(experiment, tokenizer, 0)  # Refuses what has no sentinels.
        return experiment.replace(model=model)

    def batches(self, experiment, train_text, valid_text, tokenizer, team):
        """Returns corrupted rows of the training and of the validation text."""
        train = self._corruption(experiment, tokenizer, experiment.data.seed)
        valid = self._corruption(experiment, tokenizer, _VALIDATION_SEED)
        config = experiment.data.replace(context=train.num_tokens)
        if valid_text is None:
            train_text, valid_text = data.load_splits(train_text, tokenizer, config)
        return (
            data.training_batches(train_text, tokenizer, config, *team, train),
            data.validation_batches(valid_text, tokenizer, config, *team, valid),
        )

    def _corruption(self, experiment, tokenizer, seed):
        tokens = span_corruption.row_tokens(
            experiment.data.context, self.rate, self.mean_length
        )
        return data.SpanCorruption(
            tokenizer,
            tokens,
            self.rate,
            self.mean_length,
            experiment.model.start_id,
            seed,
        )

    def count_tokens(self, batch):
        """Returns the ids of sources and targets."""
        return int(batch["source_lengths"].sum() + batch["weights"].sum())
