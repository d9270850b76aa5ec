"""Beam search: the likeliest texts instead of drawn ones."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from keras_llm.generation import beams
from keras_llm.generation import parameters as parameters_lib
from keras_llm.generation.adapter_names import AdapterNames
from keras_llm.generation.generator import readable_errors
from keras_llm.generation.sequence_to_sequence import make_prompt_model
from keras_llm.tokenizers import repair_utf8

MAX_BEAMS = 64
MAX_LENGTH_PENALTY = 2.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Beam:
    """One hypothesis.

    Attributes:
        text: The continuation.
        token_ids: Its tokens, a final end token included.
        log_prob: Sum of the tokens' log probabilities.
        score: `log_prob` over the length penalty; beams are ordered by it.
        finish_reason: "end" or "length".
    """

    text: str
    token_ids: list[int]
    log_prob: float
    score: float
    finish_reason: str


class _AdaptedDecoder(NamedTuple):
    """A decoder whose rows take their adapters: B prompts first, then B W beams."""

    decoder: Any
    adapters: AdapterNames
    rows_B: tf.Tensor
    rows_BW: tf.Tensor

    def prefill(self, token_ids, lengths, capacity):
        with self.adapters.using(self.rows_B):
            return self.decoder.prefill(token_ids, lengths, capacity)

    def step(self, token_ids, state):
        with self.adapters.using(self.rows_BW):
            return self.decoder.step(token_ids, state)


class BeamSearch:
    """Finds likely continuations of prompts with W beams each.

    A beam's score is log p / ((5 + length) / 6) ** length_penalty, its length in
    tokens, the end token included. A row's search ends when no live beam can still
    beat the worst of W finished ones, or at `max_new_tokens`. A row's beams do not
    depend on the rows beside it.

    Transformers divides by length ** length_penalty instead (with a penalty of 0
    both are log p), and leaves out an end that ranks below W among the candidates of
    its step; so its search may find other beams.

    Source: Wu et al. 2016, section 7, https://arxiv.org/abs/1609.08144.

    Args:
        model: A built language model or encoder-decoder.
        tokenizer: Its tokenizer.
    """

    def __init__(self, model, tokenizer):
        self.text_model = make_prompt_model(model, tokenizer)
        row = tf.TensorSpec([None], tf.int32)
        self._run = tf.function(
            self._search_ids,
            input_signature=[
                tf.TensorSpec([None, None], tf.int32),
                row,
                row,
                row,
                tf.TensorSpec([None], tf.float32),
                tf.TensorSpec([None], tf.string),
            ],
            autograph=False,
        )

    def search(
        self,
        prompt: str | bytes,
        num_beams: int = 4,
        max_new_tokens: int | None = None,
        length_penalty: float = 0.6,
        adapter: str | None = None,
    ) -> list[Beam]:
        """Returns all beams of one prompt, the best first.

        Args:
            prompt: The text to continue.
            num_beams: W, from 1 to 64.
            max_new_tokens: At least 1 and within the positions that are left; None
                for 64 or all of those.
            length_penalty: From 0, which prefers short texts, to 2.
            adapter: Of a model with several (`models.add_adapters`), the name of the
                one to take; "" or None for none.

        Raises:
            ValueError: A value is out of range, or an adapter unknown.
        """
        return self.search_all(
            [prompt], num_beams, max_new_tokens, length_penalty, adapter
        )[0]

    def search_all(
        self,
        prompts: Sequence[str | bytes],
        num_beams: int | Sequence[int] = 4,
        max_new_tokens: int | Sequence[int] | None = None,
        length_penalty: float | Sequence[float] = 0.6,
        adapter: str | Sequence[str] | None = None,
    ) -> list[list[Beam]]:
        """Returns all beams of every prompt, as `search` does for one.

        Args:
            prompts: The texts to continue.
            num_beams: As in `search`, one for all or one per prompt.
            max_new_tokens: As in `search`, one for all or one per prompt.
            length_penalty: As in `search`, one for all or one per prompt.
            adapter: As in `search`, one for all or one per prompt.

        Raises:
            ValueError: A value is out of range, or an adapter unknown.
        """
        count = len(prompts)
        with readable_errors():
            prompt = tf.constant(list(prompts), tf.string, [count])
            token_ids, lengths = self.text_model.encode_prompt(prompt)
            if max_new_tokens is None:
                room = tf.maximum(self.text_model.room(lengths), 1)
                max_new_tokens = tf.minimum(parameters_lib.DEFAULT_NEW_TOKENS, room)
            result = self._run(
                token_ids,
                lengths,
                tf.broadcast_to(tf.constant(num_beams, tf.int32), [count]),
                tf.broadcast_to(tf.constant(max_new_tokens, tf.int32), [count]),
                tf.broadcast_to(tf.constant(length_penalty, tf.float32), [count]),
                self.text_model.adapters.column(adapter, count),
            )
        return [
            self._beams({name: value[i] for name, value in result.items()})
            for i in range(count)
        ]

    def search_texts(
        self, prompt, num_beams, max_new_tokens, length_penalty, adapter=None
    ):
        """Continues prompts in graph, from strings to strings.

        Args:
            prompt: String [B].
            num_beams: As in `search_ids`, and so the others.
            max_new_tokens: Int32 [B].
            length_penalty: Float32 [B].
            adapter: String [B], the name of each row's adapter, "" for none; None
                where the model has none.

        Returns:
            As `search_ids`, and `texts` string [B, W], valid UTF-8: "" where a row has
            fewer beams.
        """
        token_ids, lengths = self.text_model.encode_prompt(prompt)
        found = self._search_ids(
            token_ids, lengths, num_beams, max_new_tokens, length_penalty, adapter
        )
        batch, width, room = tf.unstack(tf.shape(found["token_ids"]))
        flat = tf.reshape(found["token_ids"], [batch * width, room])
        texts = repair_utf8(self._decode(flat))
        return {"texts": tf.reshape(texts, [batch, width]), **found}

    def search_ids(
        self,
        token_ids,
        lengths,
        num_beams,
        max_new_tokens,
        length_penalty,
        adapter_rows=None,
    ):
        """Continues prompts given as ids; holds no string op, and can be traced.

        Args:
            token_ids: Int32 [B, T], right-padded.
            lengths: Int32 [B], each from 1 to T.
            num_beams: Int32 [B], each from 1 to 64 and below the vocabulary; the
                greatest is W.
            max_new_tokens: Int32 [B], each at least 1.
            length_penalty: Float32 [B], each from 0 to 2.
            adapter_rows: Int32 [B], the number of each row's adapter among those that
                the model was given, 0 for none; None for none in any row.

        Returns:
            Dict of all beams, the best first: `token_ids` int32 [B, W, N], -1 after
            each one's last; `scores` and `log_probs` float32 [B, W]; `num_tokens`
            int32 [B, W]. Where a row has fewer beams than W: no token, and -1e30.

        Raises:
            tf.errors.InvalidArgumentError: When run, on a value out of range.
        """
        token_ids, lengths = self.text_model.check_ids(token_ids, lengths)
        request = self._request(lengths, num_beams, max_new_tokens, length_penalty)
        room = tf.reduce_max(tf.concat([[1], request.max_new_tokens], 0))
        capacity = self.text_model.capacity(tf.shape(token_ids)[1], room)
        width = tf.reduce_max(tf.concat([[1], request.num_beams], 0))
        token_ids, capacity = self.text_model.bounded(token_ids, capacity, width)
        if adapter_rows is None:
            adapter_rows = tf.zeros_like(lengths)
        decoder = _AdaptedDecoder(
            self.text_model.decoder,
            self.text_model.adapters,
            adapter_rows,
            tf.repeat(adapter_rows, width),
        )
        state = beams.search(decoder, token_ids, lengths, request, room, capacity)
        there = state.done_scores > beams.IMPOSSIBLE / 2
        done_ids = tf.where(there[:, :, None], state.done_ids, -1)
        num_tokens = tf.reduce_sum(tf.cast(done_ids >= 0, tf.int32), axis=-1)
        longest = tf.reduce_max(tf.concat([[0], tf.reshape(num_tokens, [-1])], 0))
        return {
            "token_ids": done_ids[:, :, :longest],
            "scores": state.done_scores,
            "log_probs": tf.where(there, state.done_log_probs, beams.IMPOSSIBLE),
            "num_tokens": num_tokens,
        }

    def _search_ids(self, token_ids, lengths, num, new_tokens, penalty, adapter):
        """Returns what `search_ids` does, of adapters by their names."""
        rows = self.text_model.adapters.rows(adapter, lengths)
        return self.search_ids(token_ids, lengths, num, new_tokens, penalty, rows)

    def _request(self, lengths, num_beams, max_new_tokens, length_penalty):
        """Returns the knobs, unreadable until they have passed their checks."""
        model = self.text_model
        vocab = model.tokenizer.vocab_size
        most = min(MAX_BEAMS, vocab - 1)
        same_rows = [
            parameters_lib.require_rows("num_beams", num_beams, lengths),
            parameters_lib.require_rows("max_new_tokens", max_new_tokens, lengths),
            parameters_lib.require_rows("length_penalty", length_penalty, lengths),
        ]
        with tf.control_dependencies(same_rows):
            required = [
                parameters_lib.require_range("num_beams", num_beams, 1, most),
                parameters_lib.require_range(
                    "length_penalty", length_penalty, 0.0, MAX_LENGTH_PENALTY
                ),
                parameters_lib.require_room(
                    "max_new_tokens",
                    max_new_tokens,
                    model.room(lengths),
                    model.limit,
                    model.decoder.prompt_in_cache,
                ),
            ]
        with tf.control_dependencies(required):
            return beams.Request(
                tf.identity(num_beams),
                tf.identity(max_new_tokens),
                tf.identity(length_penalty),
                model.end_id,
                vocab,
            )

    def _decode(self, ids):
        goes_on = self.text_model.decoder.prompt_in_cache
        return self.text_model.tokenizer.decode(ids, continues=goes_on)

    def _beams(self, row) -> list[Beam]:
        """Returns the beams of one row of the result."""
        texts = self._decode(row["token_ids"]).numpy()
        found = []
        for i, count in enumerate(row["num_tokens"].numpy()):
            if row["scores"][i] <= beams.IMPOSSIBLE / 2:
                continue
            ids = row["token_ids"][i, :count].numpy().tolist()
            ended = bool(ids) and ids[-1] == self.text_model.end_id
            found.append(
                Beam(
                    text=texts[i].decode(errors="replace"),
                    token_ids=ids,
                    log_prob=float(row["log_probs"][i]),
                    score=float(row["scores"][i]),
                    finish_reason="end" if ended else "length",
                )
            )
        return found
