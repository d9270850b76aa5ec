"""The loop of beam search, for every model that offers `prefill` and `step`.

W is the number of beams, N the most new tokens of a row. A row may ask for fewer beams
than the batch has: what it does not use is impossible, -1e30, from step to step.
"""

from typing import Any, NamedTuple

import tensorflow as tf

IMPOSSIBLE = -1e30  # Below any sum of log probabilities, and finite.
# A decoder's state under such a name depends on the source alone.
_OF_SOURCE = "memory"


class Request(NamedTuple):
    """What stays the same while a batch is searched.

    Attributes:
        num_beams: Int32 [B], each below V; the greatest is W.
        max_new_tokens: Int32 [B].
        length_penalty: Float32 [B], at least 0.
        end_id: The token that ends a text.
        vocab_size: V, the ids that the tokenizer has.
    """

    num_beams: tf.Tensor
    max_new_tokens: tf.Tensor
    length_penalty: tf.Tensor
    end_id: int
    vocab_size: int


class State(NamedTuple):
    """The beams of each prompt: W live ones and the best W finished ones.

    Attributes:
        step: Int32 scalar, tokens in every live beam of a row that still runs.
        num_tokens: Int32 [B], tokens in the row's live beams.
        model: The model's state, leading dimension B W.
        live_ids: Int32 [B, W, N], -1 where nothing is written.
        live_log_probs: Float32 [B, W].
        done_ids: Int32 [B, W, N].
        done_log_probs: Float32 [B, W].
        done_scores: Float32 [B, W], far below zero where there is no beam yet.
        logits: Float32 [B, W, V], for the next token of each live beam.
    """

    step: tf.Tensor
    num_tokens: tf.Tensor
    model: Any
    live_ids: tf.Tensor
    live_log_probs: tf.Tensor
    done_ids: tf.Tensor
    done_log_probs: tf.Tensor
    done_scores: tf.Tensor
    logits: tf.Tensor


def search(decoder, token_ids, lengths, request: Request, room, capacity) -> State:
    """Finds the best W continuations of every prompt that the beams come by.

    Args:
        decoder: Offers `prefill` and `step`.
        token_ids: Int32 [B, T], right-padded prompts.
        lengths: Int32 [B], each from 1 to T.
        request: The knobs.
        room: Int32 scalar N, at least the greatest `max_new_tokens` and 1.
        capacity: Int32 scalar C, the slots that the longest row will fill.

    Returns:
        The final state; its finished beams are the result, the best first, those
        among them that were cut at `max_new_tokens`.
    """
    state = _begin(decoder, token_ids, lengths, request, room, capacity)
    (state,) = tf.while_loop(
        lambda state: tf.reduce_any(_is_open(state, request)),
        lambda state: (_extend(decoder, state, request),),
        (state,),
    )
    return _finish_live(state, request)


def _begin(decoder, token_ids, lengths, request: Request, room, capacity) -> State:
    logits, model_state = decoder.prefill(token_ids, lengths, capacity)
    batch = tf.shape(logits)[0]
    beams = tf.reduce_max(tf.concat([[1], request.num_beams], axis=0))
    empty = tf.fill([batch, beams, room], -1)
    none = tf.fill([batch, beams], IMPOSSIBLE)
    return State(
        step=tf.constant(0),
        num_tokens=tf.zeros([batch], tf.int32),
        model={name: tf.repeat(x, beams, axis=0) for name, x in model_state.items()},
        live_ids=empty,
        # All beams begin alike: only the first may grow, or they stay alike.
        live_log_probs=tf.where(tf.range(beams)[None] == 0, 0.0, none),
        done_ids=empty,
        done_log_probs=none,
        done_scores=none,
        logits=tf.repeat(logits[:, None, : request.vocab_size], beams, axis=1),
    )


def _is_open(state: State, request: Request):
    """Returns bool [B]: where a live beam may yet beat a finished one."""
    # log p only falls, so the best that a live beam can reach is bounded by its
    # log p now over the penalty of the greatest length.
    longest = _penalty(request.max_new_tokens, request)
    best = tf.reduce_max(state.live_log_probs, axis=1) / longest
    worst = tf.gather(state.done_scores, request.num_beams - 1, batch_dims=1)
    return (state.num_tokens < request.max_new_tokens) & (best > worst)


def _extend(decoder, state: State, request: Request) -> State:
    """Adds one token to every beam, keeping the best W of all that result.

    A row that is no longer open stays as it is.
    """
    batch, beams, vocab = tf.unstack(tf.shape(state.logits))
    log_probs = tf.nn.log_softmax(state.logits) + state.live_log_probs[:, :, None]
    # Of 2 W candidates at most W end, so W that go on are among them.
    best, flat = tf.math.top_k(tf.reshape(log_probs, [batch, -1]), 2 * beams)
    best = _first(best, 2 * request.num_beams)
    parent, token = flat // vocab, flat % vocab
    ids = tf.gather(state.live_ids, parent, batch_dims=1)
    is_new = tf.range(tf.shape(ids)[2]) == state.step
    ids = tf.where(is_new, token[:, :, None], ids)
    ends = token == request.end_id
    score = best / _penalty(state.num_tokens + 1, request)[:, None]
    score = tf.where(ends, score, IMPOSSIBLE)
    live_best, live = tf.math.top_k(tf.where(ends, IMPOSSIBLE, best), beams)
    live_best = _first(live_best, request.num_beams)
    done = _merge_done(state, ids, best, score, request)

    is_open = _is_open(state, request)
    parent, token, ids = (
        tf.gather(x, live, batch_dims=1) for x in (parent, token, ids)
    )
    # Where a row is closed, each beam goes on from itself.
    parent = tf.where(is_open[:, None], parent, tf.range(beams)[None])
    rows = tf.reshape(tf.range(batch)[:, None] * beams + parent, [-1])
    state = state._replace(
        step=state.step + 1,
        num_tokens=state.num_tokens + tf.cast(is_open, tf.int32),
        model=_pick(state.model, rows),
        live_ids=tf.where(is_open[:, None, None], ids, state.live_ids),
        live_log_probs=tf.where(is_open[:, None], live_best, state.live_log_probs),
        done_ids=tf.where(is_open[:, None, None], done.done_ids, state.done_ids),
        done_log_probs=tf.where(
            is_open[:, None], done.done_log_probs, state.done_log_probs
        ),
        done_scores=tf.where(is_open[:, None], done.done_scores, state.done_scores),
    )
    return tf.cond(
        tf.reduce_any(_is_open(state, request)),
        lambda: _step(decoder, state, token),
        lambda: state,
    )


def _step(decoder, state: State, token) -> State:
    logits, model_state = decoder.step(tf.reshape(token, [-1]), state.model)
    shape = tf.shape(state.logits)
    logits = tf.reshape(logits[:, : shape[2]], shape)
    return state._replace(logits=logits, model=model_state)


def _finish_live(state: State, request: Request) -> State:
    """Lets the live beams, cut at the greatest length, stand for missing ones."""
    cut = state.live_log_probs / _penalty(state.num_tokens, request)[:, None]
    scores = tf.where(state.live_log_probs > IMPOSSIBLE / 2, cut, IMPOSSIBLE)
    state = _merge_done(state, state.live_ids, state.live_log_probs, scores, request)
    return state._replace(model=(), logits=())


def _penalty(length, request: Request):
    """Returns ((5 + length) / 6) ** length_penalty, [B]."""
    return ((5.0 + tf.cast(length, tf.float32)) / 6.0) ** request.length_penalty


def _pick(model_state, rows):
    """Returns the state of each beam's parent.

    All beams of a row share its source: what depends on it alone stays in place.
    """
    return {
        name: x if name.startswith(_OF_SOURCE) else tf.gather(x, rows)
        for name, x in model_state.items()
    }


def _first(values, counts):
    """Returns float32 [B, K]: the first of each row, impossible from `counts` on."""
    place = tf.range(tf.shape(values)[1])[None]
    return tf.where(place < counts[:, None], values, IMPOSSIBLE)


def _merge_done(state: State, ids, log_probs, scores, request: Request) -> State:
    """Merges candidates into the best finished beams, as many as a row has."""
    all_scores = tf.concat([state.done_scores, scores], axis=1)
    kept, index = tf.math.top_k(all_scores, tf.shape(state.done_scores)[1])

    def chosen(done, candidates):
        both = tf.concat([done, candidates], axis=1)
        return tf.gather(both, index, batch_dims=1)

    return state._replace(
        done_scores=_first(kept, request.num_beams),
        done_ids=chosen(state.done_ids, ids),
        done_log_probs=chosen(state.done_log_probs, log_probs),
    )
