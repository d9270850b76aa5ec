"""The one decoding loop, for every model that offers `prefill` and `step`."""

from typing import Any, NamedTuple

import tensorflow as tf

from keras_llm.generation import parameters as parameters_lib
from keras_llm.generation import stopping
from keras_llm.generation.parameters import Parameters
from keras_llm.ops import sampling

RUNNING, STOP, LENGTH, END = range(4)
FINISH_REASONS = ("", "stop", "length", "end")


class Request(NamedTuple):
    """What stays the same while a batch is decoded.

    Attributes:
        parameters: The knobs, one value per row.
        stops: The stop strings, or None.
        token_bytes: The tokens' bytes, in which stop strings are found.
        end_id: The token that ends a text.
        vocab_size: Ids that the tokenizer has; the model may have spare rows, whose
            logits are left out.
    """

    parameters: Parameters
    stops: stopping.Stops | None
    token_bytes: stopping.TokenBytes
    end_id: int
    vocab_size: int


class State(NamedTuple):
    """What changes with every token; leading dimension B but for `step`.

    Attributes:
        step: Int32 scalar, the tokens written to every row that still runs.
        last: Int32 [B], the newest token.
        model: The model's own state: caches, positions.
        seen: Bool [B, V], the tokens that the row holds.
        tail: The text's last bytes (`stopping.Tail`), or () without stop strings.
        token_ids: Int32 [B, N], -1 where nothing was written.
        log_probs: Float32 [B, N], 0 where nothing was written.
        num_tokens: Int32 [B].
        finish: Int32 [B], an index of FINISH_REASONS; 0 while running.
    """

    step: tf.Tensor
    last: tf.Tensor
    model: Any
    seen: tf.Tensor
    tail: Any
    token_ids: tf.Tensor
    log_probs: tf.Tensor
    num_tokens: tf.Tensor
    finish: tf.Tensor


def decode(decoder, token_ids, lengths, request: Request, room, capacity) -> State:
    """Continues every prompt until its row is done.

    Args:
        decoder: Offers `prefill` and `step`; `prompt_in_cache` is False where the
            prompt is another text than the one that is written, as a source is.
        token_ids: Int32 [B, T], right-padded prompts; or whatever else [B, ...] the
            decoder's `prefill` begins from.
        lengths: Int32 [B], each from 1 to T.
        request: The knobs.
        room: Int32 scalar N, at least the greatest `max_new_tokens` and 1.
        capacity: Int32 scalar C, the slots that the longest row will fill: prompt
            and continuation, or the continuation alone.

    Returns:
        The final state.
    """
    state = begin(decoder, token_ids, lengths, request, room, capacity)
    return tf.while_loop(
        lambda state: tf.reduce_any(state.finish == RUNNING),
        lambda state: (advance(decoder, state, request),),
        (state,),
    )[0]


def begin(decoder, token_ids, lengths, request: Request, room, capacity) -> State:
    """Reads the prompts and chooses every row's first token."""
    # The knobs are readable once all checks have passed; the prompt, whose length
    # is among what is checked, must not reach the model before.
    with tf.control_dependencies(list(request.parameters)):
        token_ids, lengths = tf.identity(token_ids), tf.identity(lengths)
    logits, model_state = decoder.prefill(token_ids, lengths, capacity)
    batch = tf.shape(logits)[0]
    state = State(
        step=tf.constant(0),
        last=tf.zeros([batch], tf.int32),
        model=model_state,
        seen=_seen(decoder, token_ids, lengths, request.vocab_size),
        tail=() if request.stops is None else stopping.begin(request.stops),
        token_ids=tf.fill([batch, room], -1),
        log_probs=tf.zeros([batch, room]),
        num_tokens=tf.zeros([batch], tf.int32),
        finish=tf.where(request.parameters.max_new_tokens > 0, RUNNING, LENGTH),
    )
    return _choose(logits, state, request)


def advance(decoder, state: State, request: Request) -> State:
    """Feeds the newest tokens to the model and chooses the next ones.

    Rows that are done are carried along; what is written for them is nothing.
    """
    logits, model_state = decoder.step(state.last, state.model)
    return _choose(logits, state._replace(model=model_state), request)


def _choose(logits, state: State, request: Request) -> State:
    """Picks a token for every running row and notes whether that ends the row."""
    p = request.parameters
    logits = logits[:, : request.vocab_size]
    runs = state.finish == RUNNING
    token = _pick(logits, state, p)
    chosen = tf.gather(logits, token, batch_dims=1)
    log_prob = chosen - tf.reduce_logsumexp(logits, axis=-1)
    count = state.num_tokens + tf.cast(runs, tf.int32)
    finish = tf.where(count >= p.max_new_tokens, LENGTH, RUNNING)
    tail = state.tail
    if request.stops is not None:
        tail = tf.cond(
            tf.reduce_any(request.stops.lengths_BS > 0),
            lambda: stopping.advance(
                state.tail, request.token_bytes(token), request.stops
            ),
            lambda: state.tail,
        )
        # A row that is done is carried along: what it writes now cuts no text.
        tail = tail._replace(cut_B=tf.where(runs, tail.cut_B, state.tail.cut_B))
        finish = tf.where(tail.cut_B < tf.int32.max, STOP, finish)
    finish = tf.where(token == request.end_id, END, finish)
    rows = tf.range(tf.shape(token)[0])
    # A row that is done repeats its last column's value: the write must go
    # somewhere, and every index must be in range.
    column = tf.minimum(state.step, tf.shape(state.token_ids)[1] - 1)
    places = tf.stack([rows, tf.fill(tf.shape(rows), column)], axis=1)
    return State(
        step=state.step + 1,
        last=token,
        model=state.model,
        seen=tf.tensor_scatter_nd_update(
            state.seen, tf.stack([rows, token], axis=1), tf.ones_like(runs)
        ),
        tail=tail,
        token_ids=tf.tensor_scatter_nd_update(
            state.token_ids, places, tf.where(runs, token, -1)
        ),
        log_probs=tf.tensor_scatter_nd_update(
            state.log_probs, places, tf.where(runs, log_prob, 0.0)
        ),
        num_tokens=count,
        finish=tf.where(runs, finish, state.finish),
    )


def _pick(logits, state: State, p: Parameters):
    """Returns the next token [B]; skips what no row asks for."""
    logits = tf.cond(
        tf.reduce_any(p.repetition_penalty != 1),
        lambda: sampling.penalize_repetition(logits, state.seen, p.repetition_penalty),
        lambda: logits,
    )
    return tf.cond(
        tf.reduce_any(p.temperature > 0),
        lambda: sampling.sample(
            logits, p.temperature, p.top_k, p.top_p, p.min_p, p.seed, state.step
        ),
        lambda: sampling.greedy(logits),
    )


def _seen(decoder, token_ids, lengths, vocab):
    """Returns bool [B, V]: the tokens of each row's text, padding left out."""
    batch, time = tf.unstack(tf.shape(token_ids))
    if not decoder.prompt_in_cache:
        return tf.zeros([batch, vocab], tf.bool)
    is_real = tf.range(time)[None] < lengths[:, None]
    # Padding is noted in a column beyond the vocabulary, which is then dropped.
    columns = tf.where(is_real, tf.minimum(token_ids, vocab), vocab)
    rows = tf.broadcast_to(tf.range(batch)[:, None], [batch, time])
    seen = tf.tensor_scatter_nd_update(
        tf.zeros([batch, vocab + 1], tf.bool),
        tf.stack([rows, columns], axis=-1),
        tf.ones([batch, time], tf.bool),
    )
    return seen[:, :vocab]


def without_spare_columns(state: State) -> State:
    """Returns a finished state cut to the tokens of its longest row."""
    written = tf.reduce_max(tf.concat([[0], state.num_tokens], 0))
    return state._replace(
        token_ids=state.token_ids[:, :written],
        log_probs=state.log_probs[:, :written],
    )


def without_caches(state: State) -> State:
    """Returns a finished state as a traced function gives it.

    The caches stay inside: nobody reads them after the last token.
    """
    return state._replace(model=(), seen=())


def decode_signature(prompt: tf.TensorSpec):
    """Returns the types of what decoding takes: sizes are known when it runs.

    Args:
        prompt: Of what `prefill` reads.
    """
    row, scalar = tf.TensorSpec([None], tf.int32), tf.TensorSpec([], tf.int32)
    knobs = {n: tf.TensorSpec([None], d) for n, d in parameters_lib.DTYPES.items()}
    stops = stopping.Stops(
        tf.TensorSpec([None, None, None], tf.int32),
        tf.TensorSpec([None, None], tf.int32),
    )
    return [prompt, row, Parameters(**knobs), stops, scalar, scalar]
