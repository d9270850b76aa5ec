"""An exported encoder that finds the answer to a question in a text."""

import tensorflow as tf

from keras_llm.export.encoder import TEXT, TEXTS, EncoderServable
from keras_llm.export.located import check_locates, in_column
from keras_llm.ops import spans
from keras_llm.tokenizers import repair_utf8

MAX_ANSWER_TOKENS = 30

_EXAMPLE = """```bash
curl -d '{"instances": [{"question": "QUESTION", "context": "TEXT"}]}' \\
  http://127.0.0.1:8501/v1/models/{name}:predict
```
"""


class AnswerServable(EncoderServable):
    """The signature `answer`: question and context to a stretch of the context.

    Question and context together must fit the model's positions; an answer has 30
    tokens at most.

    Raises:
        ValueError: The tokenizer does not tell where its tokens are.
    """

    def __init__(self, model, tokenizer, jit, weights):
        check_locates(tokenizer, "answer")
        super().__init__(model, tokenizer, jit, weights)

    def head_functions(self):
        """Returns what answers each signature, by signature name."""
        answer = self.answer, {"question": TEXT, "context": TEXT}
        return {"serving_default": answer, "answer": answer}

    def answer(self, question, context):
        """Returns the likeliest stretch of each context.

        Args:
            question: String [B].
            context: String [B].

        Returns:
            Dict of `text` string [B], the stretch, valid UTF-8; `start` and `end`
            int32 [B], the bytes of the context from which and up to which it goes;
            `score` float32 [B], the logits of its two ends less those of `[cls]`,
            which stands for "no answer here": above 0 the stretch is likelier. A
            context without tokens gives "", 0, 0 and a score of 0.
        """
        context = self.paired(question=question, context=context)
        asked = self.tokenizer.encode(question)
        ids, starts, ends = self.tokenizer.encode_with_offsets(context)
        rows = self.rows.join(asked, ids)
        rows = self.fitting(rows, "`question` and `context` together")
        logits = self.output(rows)
        before = tf.cast(asked.row_lengths(), tf.int32) + 2
        size = tf.cast(ids.row_lengths(), tf.int32)
        column = tf.range(tf.shape(logits)[1])[None] - before[:, None]
        first, last, score = spans.best_span(
            logits[..., 0],
            logits[..., 1],
            (column >= 0) & (column < size[:, None]),
            MAX_ANSWER_TOKENS,
        )
        is_there = size > 0
        start = in_column(starts, tf.where(is_there, first - before, 0))
        end = in_column(ends, tf.where(is_there, last - before, 0))
        return {
            "text": repair_utf8(tf.strings.substr(context, start, end - start)),
            "start": start,
            "end": end,
            "score": tf.where(is_there, score - tf.reduce_sum(logits[:, 0], -1), 0.0),
        }

    def warmup_requests(self):
        """Returns a small request to every signature."""
        text = tf.constant(["a"])
        pair = {"question": text, "context": text}
        return [
            ("serving_default", pair),
            ("answer", pair),
            ("tokenize", {"text": text}),
        ]

    def cases(self, answer):
        """Yields requests to every signature: a mixed batch, then single rows."""
        del answer
        pairs = [(q, c) for q in TEXTS[1:3] for c in TEXTS if self.fits(q, c)]
        yield (
            "answer",
            {"question": [q for q, _ in pairs], "context": [c for _, c in pairs]},
        )
        for q, c in pairs:
            yield "serving_default", {"question": [q], "context": [c]}
        yield "tokenize", {"text": [c for _, c in pairs]}

    def example(self):
        """Returns a command that asks a question."""
        return _EXAMPLE
