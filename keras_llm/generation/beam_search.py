"""Beam search: the likeliest texts instead of drawn ones."""

import dataclasses
from typing import Any, NamedTuple

import tensorflow as tf

from keras_llm.core import checks
from keras_llm.generation import parameters as parameters_lib
from keras_llm.generation.generator import readable_errors
from keras_llm.generation.text_model import TextModel

_IMPOSSIBLE = -1e30  # Below any sum of log probabilities, and finite.


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


class State(NamedTuple):
    """The beams of one prompt, W live ones and the best W finished ones.

    Attributes:
        step: Int32 scalar, tokens in every live beam.
        model: The model's state, leading dimension W.
        live_ids: Int32 [W, N], -1 where nothing is written.
        live_log_probs: Float32 [W].
        done_ids: Int32 [W, N].
        done_log_probs: Float32 [W].
        done_scores: Float32 [W], far below zero where there is no beam yet.
        logits: Float32 [W, V], for the next token of each live beam.
    """

    step: tf.Tensor
    model: Any
    live_ids: tf.Tensor
    live_log_probs: tf.Tensor
    done_ids: tf.Tensor
    done_log_probs: tf.Tensor
    done_scores: tf.Tensor
    logits: tf.Tensor


class BeamSearch:
    """Finds likely continuations of a prompt with W beams.

    A beam's score is log p / ((5 + length) / 6) ** length_penalty. The search ends
    when no live beam can still beat the worst of W finished ones, or at
    `max_new_tokens`.

    Source: Wu et al. 2016, section 7, https://arxiv.org/abs/1609.08144.

    Args:
        model: A built language model.
        tokenizer: Its tokenizer.
    """

    def __init__(self, model, tokenizer):
        self.text_model = TextModel(model, tokenizer)
        size = tf.TensorSpec([], tf.int32)
        self._run = tf.function(
            self._search,
            input_signature=[
                tf.TensorSpec([1, None], tf.int32),
                tf.TensorSpec([1], tf.int32),
                *(size, size, tf.TensorSpec([], tf.float32)),
            ],
            autograph=False,
        )

    def search(
        self,
        prompt: str | bytes,
        num_beams: int = 4,
        max_new_tokens: int | None = None,
        length_penalty: float = 0.6,
    ) -> list[Beam]:
        """Returns all beams, the best first.

        Args:
            prompt: The text to continue.
            num_beams: W, from 1 to 64.
            max_new_tokens: At least 1 and within the positions that are left; None
                for 64 or all of those.
            length_penalty: From 0, which prefers short texts, to 2.

        Raises:
            ValueError: A value is out of range.
        """
        vocab = self.text_model.tokenizer.vocab_size
        checks.check_in_range("num_beams", num_beams, 1, min(64, vocab - 1))
        checks.check_in_range("length_penalty", length_penalty, 0, 2)
        with readable_errors():
            token_ids, lengths = self.text_model.encode_prompt(tf.constant([prompt]))
            room = self.text_model.limit - int(lengths[0])
            if max_new_tokens is None:
                max_new_tokens = min(parameters_lib.DEFAULT_NEW_TOKENS, room)
            checks.check_in_range("max_new_tokens", max_new_tokens, 1, room)
            state = self._run(
                token_ids,
                lengths,
                tf.constant(num_beams),
                tf.constant(max_new_tokens),
                tf.constant(length_penalty, tf.float32),
            )
        texts = self.text_model.tokenizer.decode(state.done_ids).numpy()
        beams = []
        for i, ids in enumerate(state.done_ids.numpy()):
            written = ids[ids >= 0].tolist()
            beams.append(
                Beam(
                    text=texts[i].decode(errors="replace"),
                    token_ids=written,
                    log_prob=float(state.done_log_probs[i]),
                    score=float(state.done_scores[i]),
                    finish_reason="end"
                    if written and written[-1] == self.text_model.end_id
                    else "length",
                )
            )
        return beams

    def _search(self, token_ids, lengths, beams, room, penalty):
        capacity = tf.shape(token_ids)[1] + room
        logits, model_state = self.text_model.decoder.prefill(
            token_ids, lengths, capacity
        )
        logits = logits[:, : self.text_model.tokenizer.vocab_size]
        copies = tf.zeros([beams], tf.int32)
        empty = tf.fill([beams, room], -1)
        none = tf.fill([beams], _IMPOSSIBLE)
        state = State(
            step=tf.constant(0),
            model=_pick(model_state, copies),
            live_ids=empty,
            # All beams begin alike: only the first may grow, or they stay alike.
            live_log_probs=tf.tensor_scatter_nd_update(none, [[0]], [0.0]),
            done_ids=empty,
            done_log_probs=none,
            done_scores=none,
            logits=tf.gather(logits, copies),
        )

        def is_open(state):
            # log p only falls, so the best that a live beam can reach is bounded
            # by its log p now over the penalty of the greatest length.
            best = tf.reduce_max(state.live_log_probs) / _penalty(room, penalty)
            worst = tf.reduce_min(state.done_scores)
            return (state.step < room) & (best > worst)

        (state,) = tf.while_loop(
            is_open, lambda state: (self._extend(state, room, penalty),), (state,)
        )
        return self._finish_live(state, penalty)

    def _extend(self, state: State, room, penalty) -> State:
        """Adds one token to every beam, keeping the best W of all that result."""
        beams, vocab = tf.unstack(tf.shape(state.logits))
        log_probs = tf.nn.log_softmax(state.logits) + state.live_log_probs[:, None]
        # Of 2 W candidates at most W end, so W that go on are among them.
        best, flat = tf.math.top_k(tf.reshape(log_probs, [-1]), 2 * beams)
        parent, token = flat // vocab, flat % vocab
        column = tf.fill([2 * beams], state.step)
        ids = tf.tensor_scatter_nd_update(
            tf.gather(state.live_ids, parent),
            tf.stack([tf.range(2 * beams), column], axis=1),
            token,
        )
        ends = token == self.text_model.end_id
        score = best / _penalty(state.step + 1, penalty)
        state = _keep_done(state, ids, best, tf.where(ends, score, _IMPOSSIBLE))
        live_best, live = tf.math.top_k(tf.where(ends, _IMPOSSIBLE, best), beams)
        state = state._replace(
            step=state.step + 1,
            model=_pick(state.model, tf.gather(parent, live)),
            live_ids=tf.gather(ids, live),
            live_log_probs=live_best,
        )
        return tf.cond(
            state.step < room,
            lambda: self._step(state, tf.gather(token, live)),
            lambda: state,
        )

    def _step(self, state: State, token) -> State:
        logits, model_state = self.text_model.decoder.step(token, state.model)
        logits = logits[:, : self.text_model.tokenizer.vocab_size]
        return state._replace(logits=logits, model=model_state)

    def _finish_live(self, state: State, penalty) -> State:
        """Lets the live beams, cut at the greatest length, stand for missing ones."""
        cut = state.live_log_probs / _penalty(state.step, penalty)
        scores = tf.where(state.live_log_probs > _IMPOSSIBLE / 2, cut, _IMPOSSIBLE)
        state = _keep_done(state, state.live_ids, state.live_log_probs, scores)
        return state._replace(model=(), logits=())


def _penalty(length, exponent):
    return ((5.0 + tf.cast(length, tf.float32)) / 6.0) ** exponent


def _pick(model_state, rows):
    return tf.nest.map_structure(lambda tensor: tf.gather(tensor, rows), model_state)


def _keep_done(state: State, ids, log_probs, scores) -> State:
    """Merges candidates into the best W finished beams."""
    all_scores = tf.concat([state.done_scores, scores], 0)
    kept, index = tf.math.top_k(all_scores, tf.shape(state.done_scores)[0])
    return state._replace(
        done_scores=kept,
        done_ids=tf.gather(tf.concat([state.done_ids, ids], 0), index),
        done_log_probs=tf.gather(
            tf.concat([state.done_log_probs, log_probs], 0), index
        ),
    )
