"""What turns strings into strings, in graph, whatever the kind of model.

What `Generator` runs in memory and what the exporter writes are these functions.
"""

import abc
import math

import tensorflow as tf

from keras_llm import models
from keras_llm.generation import loop, stopping
from keras_llm.generation import parameters as parameters_lib
from keras_llm.generation.adapter_names import AdapterNames
from keras_llm.generation.parameters import Parameters
from keras_llm.tokenizers import ByteBPETokenizer, ByteTokenizer, repair_utf8

# For models without a greatest position: a bound on what one request may take.
UNBOUNDED_LIMIT = 2**15
# Slots, rows times positions, that one call may fill: those of eight full rows, the
# greatest batch that an export's `batching_params.pbtxt` lets TF Serving put together,
# and of small models no fewer than this.
FULL_ROWS = 8
LEAST_SLOTS = 2**14
_SCORE_LOGITS = 2**25  # Logits that exist at one time when scoring: 128 MB.
_SMALLEST_BUCKET = 16


class PromptModel(abc.ABC):
    """A model and its tokenizer, which reads a prompt and writes a text.

    Every method takes and returns batch-led tensors and runs eagerly or traced.

    Args:
        model: A built model that has a decoder.
        tokenizer: Its tokenizer.
        jit: Whether decoding is compiled by XLA. Sizes are then rounded up to
            powers of two, so that few programs are compiled.

    Raises:
        ValueError: The tokenizer has ids that the model lacks.
    """

    def __init__(self, model, tokenizer, jit=False):
        config = model.config
        if tokenizer.vocab_size > config.vocab_size:
            raise ValueError(
                "The model must have a row for every id of its tokenizer. Received: "
                f"tokenizer.vocab_size={tokenizer.vocab_size}, "
                f"model vocab_size={config.vocab_size}. Give the tokenizer that the "
                "model was trained with."
            )
        self.model = model
        self.tokenizer = tokenizer
        self.decoder = models.decoder(model, jit)
        self.adapters = AdapterNames(model)
        self.trunk, self.project = models.split_head(model)
        self.limit = getattr(config, "max_positions", None) or UNBOUNDED_LIMIT
        self.most_slots = max(FULL_ROWS * self.limit, LEAST_SLOTS)
        self.end_id = tokenizer.special_ids["end"]
        self.token_bytes = stopping.TokenBytes(tokenizer.token_bytes)
        self.bucket = _power_of_two if jit else None
        # Traced once: every signature that decodes calls the same function.
        self._decode = tf.function(
            self._decode_ids,
            input_signature=[
                *loop.decode_signature(tf.TensorSpec([None, None], tf.int32)),
                tf.TensorSpec([None], tf.int32),
            ],
            jit_compile=jit or None,
            autograph=False,
        )

    def generate(self, prompt, parameters: Parameters, stop, adapter=None):
        """Continues each prompt.

        Args:
            prompt: String [B]; any bytes.
            parameters: The knobs, one value per row.
            stop: String [B, S]: text ends before the first of these that would
                appear; "" is off, and S may be 0.
            adapter: String [B], the name of each row's adapter, "" for none; None
                where the model has none.

        Returns:
            Dict of `text` string [B], valid UTF-8; `token_ids` int32 [B, N], -1
            after each row's last; `log_probs` float32 [B, N], natural logarithms
            under the model itself, before temperature and filters; `num_tokens`
            int32 [B]; `finish_reason` string [B]: "stop", "length" or "end";
            `prompt_tokens` int32 [B].

        Raises:
            tf.errors.InvalidArgumentError: When run, on a value out of range.
        """
        token_ids, lengths = self.encode_prompt(prompt)
        return self.continued(token_ids, lengths, parameters, stop, adapter)

    def continued(self, token_ids, lengths, parameters, stop, adapter=None):
        """Continues prompts given as ids, as `generate` does those given as text."""
        parameters = parameters_lib.with_room(parameters, self.room(lengths))
        parameters = self.check(parameters, lengths)
        same_rows = parameters_lib.require_rows("stop", stop, lengths)
        with tf.control_dependencies([same_rows]):
            stops = stopping.parse(tf.identity(stop), self.bucket)
        rows = self.adapters.rows(adapter, lengths)
        state = self._bucketed(token_ids, lengths, parameters, stops, rows)
        return {**self.written(state), "prompt_tokens": lengths}

    def written(self, state: loop.State) -> dict[str, tf.Tensor]:
        """Returns what a finished state's rows hold, as `generate` names it."""
        goes_on = self.decoder.prompt_in_cache
        text = self.tokenizer.decode(state.token_ids, continues=goes_on)
        end = tf.minimum(state.tail.cut_B, tf.strings.length(text))
        text = tf.strings.substr(text, tf.zeros_like(end), end)
        return {
            "text": repair_utf8(text),
            "token_ids": state.token_ids,
            "log_probs": state.log_probs,
            "num_tokens": state.num_tokens,
            "finish_reason": tf.gather(tf.constant(loop.FINISH_REASONS), state.finish),
        }

    def generate_ids(self, token_ids, lengths, parameters: Parameters):
        """Continues prompts given as ids; holds no string op.

        Args:
            token_ids: Int32 [B, T], right-padded; what is beyond a row's length is
                ignored.
            lengths: Int32 [B], each from 1 to T.
            parameters: The knobs, one value per row.

        Returns:
            Dict of `token_ids`, `log_probs` and `num_tokens` as in `generate`.
        """
        token_ids, lengths = self.check_ids(token_ids, lengths)
        parameters = self.check(parameters, lengths)
        none = stopping.no_stops(tf.shape(lengths)[0], self.bucket)
        rows = self.adapters.rows(None, lengths)
        state = self._bucketed(token_ids, lengths, parameters, none, rows)
        return {
            "token_ids": state.token_ids,
            "log_probs": state.log_probs,
            "num_tokens": state.num_tokens,
        }

    @abc.abstractmethod
    def room(self, prompt_tokens):
        """Returns int32 [B]: the tokens that each row can still be given.

        Args:
            prompt_tokens: Int32 [B], the rows' prompt lengths.
        """

    @abc.abstractmethod
    def capacity(self, longest, room):
        """Returns the slots that a cache needs.

        Args:
            longest: Int32 scalar, the padded length of the prompts.
            room: Int32 scalar, the most tokens that any row is given.
        """

    @abc.abstractmethod
    def score(self, prompt, completion, adapter=None):
        """Returns how likely each completion is after its prompt.

        log p = sum over the completion's tokens of log p(token | all before it).

        Args:
            prompt: String [B].
            completion: String [B]; it is tokenized by itself.
            adapter: As in `generate`.

        Returns:
            Dict of `log_prob` float32 [B], natural; `num_tokens` int32 [B], the
            completion's; `bits_per_byte` float32 [B] = -log_prob / ln 2 / bytes,
            0 for an empty completion.
        """

    @abc.abstractmethod
    def prompt_rows(self, prompt):
        """Returns the ragged ids of each prompt as the model reads it."""

    def tokenize(self, text):
        """Returns `token_ids` int32 [B, N], padded with -1, and `num_tokens` [B]."""
        rows = self.tokenizer.encode(text)
        return {
            "token_ids": rows.to_tensor(-1),
            "num_tokens": tf.cast(rows.row_lengths(), tf.int32),
        }

    def encode_prompt(self, prompt):
        """Returns right-padded ids [B, T] and lengths [B], both at least 1."""
        with tf.control_dependencies([self.require_short("prompt", prompt)]):
            rows = self.prompt_rows(tf.identity(prompt))
        lengths = tf.cast(rows.row_lengths(), tf.int32)
        return right_padded(rows, 1), lengths

    def require_short(self, name, texts):
        """Returns an op that fails on a text that cannot fit, before it is encoded.

        Where every byte of a text is in some token, `limit` tokens hold no more than
        `limit` times the longest one's bytes. Other tokenizers drop white space or
        write one id for a long unknown word: there only the tokens can tell.
        """
        if not isinstance(self.tokenizer, (ByteTokenizer, ByteBPETokenizer)):
            return tf.no_op()
        if getattr(self.tokenizer, "unicode_form", "none") != "none":
            return tf.no_op()  # Composed, a text may have fewer bytes.
        # Twice that: of what is little too long, the exact check tells the tokens.
        most = 2 * self.limit * self.token_bytes.longest
        num_bytes = tf.strings.length(texts)
        return tf.debugging.Assert(
            tf.reduce_all(num_bytes <= most),
            [
                f"`{name}` must hold at most {most} bytes: {self.limit} tokens, the "
                "positions that this model has, hold no more; shorten it. Received, "
                "in bytes:",
                num_bytes,
            ],
            summarize=8,
        )

    def check_ids(self, token_ids, lengths):
        """Returns both, unreadable until they have passed their checks.

        What lies beyond a row's length becomes id 0. The padded length is bound
        too: every position of it takes memory.
        """
        batch, time = tf.unstack(tf.shape(token_ids))
        vocab = self.model.config.vocab_size
        same_rows = parameters_lib.require_rows("lengths", lengths, token_ids)
        fits = tf.debugging.Assert(
            time <= self.limit,
            [
                f"`token_ids` must have at most {self.limit} columns, the positions "
                "that this model has. Received:",
                time,
            ],
        )
        with tf.control_dependencies([same_rows, fits]):
            in_range = tf.debugging.Assert(
                tf.reduce_all((lengths >= 1) & (lengths <= time)),
                ["`lengths` must lie from 1 to", time, "Received:", lengths],
                summarize=8,
            )
        with tf.control_dependencies([in_range]):
            is_real = tf.range(time)[None] < lengths[:, None]
            token_ids = tf.where(is_real, token_ids, 0)
        known = tf.debugging.Assert(
            tf.reduce_all((token_ids >= 0) & (token_ids < vocab)),
            [f"Token ids must lie from 0 to {vocab - 1}. Received:", token_ids],
            summarize=8,
        )
        with tf.control_dependencies([known]):
            # Of no rows there may be no column either; what follows wants one.
            missing = tf.maximum(1 - time, 0)
            token_ids = tf.pad(
                tf.reshape(token_ids, [batch, time]), [[0, 0], [0, missing]]
            )
            return token_ids, tf.identity(lengths)

    def check(self, parameters: Parameters, prompt_tokens) -> Parameters:
        """Returns the parameters once they have passed, as `parameters.check`."""
        in_cache = self.decoder.prompt_in_cache
        return parameters_lib.check(parameters, prompt_tokens, self.limit, in_cache)

    def bounded(self, token_ids, capacity, copies=1):
        """Returns both, unreadable until the batch as a whole has passed its check.

        Rows and positions may each be within their limits and still, together, take
        more memory than a server has.

        Args:
            token_ids: Int32 [B, T].
            capacity: Int32 scalar, the slots of a row.
            copies: Int32 scalar, the beams of a row.
        """
        rows, time = tf.unstack(tf.shape(token_ids, tf.int64))
        slots = tf.maximum(time, tf.cast(capacity, tf.int64))
        fits = tf.debugging.Assert(
            rows * tf.cast(copies, tf.int64) * slots <= self.most_slots,
            [
                f"A batch may fill at most {self.most_slots} positions, rows (and "
                "beams of each) times the longest row's prompt and new tokens; send "
                "fewer rows at once. Received rows, beams, positions:",
                rows,
                copies,
                slots,
            ],
        )
        with tf.control_dependencies([fits]):
            return tf.identity(token_ids), tf.identity(capacity)

    def request(self, parameters: Parameters, stops=None) -> loop.Request:
        """Returns what the loop needs to know beside the prompts."""
        vocab_size = self.tokenizer.vocab_size
        return loop.Request(
            parameters, stops, self.token_bytes, self.end_id, vocab_size
        )

    def _bucketed(self, token_ids, lengths, parameters, stops, rows):
        """Decodes, for XLA at sizes rounded up, and cuts the result to size."""
        longest = tf.shape(token_ids)[1]
        if self.bucket is not None:
            padded = tf.minimum(self.bucket(longest), self.limit)
            token_ids = tf.pad(token_ids, [[0, 0], [0, padded - longest]])
            longest = padded
        room = self.most_new_tokens(parameters)
        capacity = self.capacity(longest, room)
        token_ids, capacity = self.bounded(token_ids, capacity)
        state = self._decode(
            token_ids, lengths, parameters, stops, room, capacity, rows
        )
        return loop.without_spare_columns(state)

    def most_new_tokens(self, parameters):
        """Returns the greatest `max_new_tokens`, 1 at least; for XLA rounded up."""
        wanted = tf.reduce_max(tf.concat([[1], parameters.max_new_tokens], 0))
        if self.bucket is None:
            return wanted
        return tf.minimum(self.bucket(wanted), self.limit)

    def _decode_ids(self, token_ids, lengths, parameters, stops, room, capacity, rows):
        request = self.request(parameters, stops)
        with self.adapters.using(rows):
            state = loop.decode(
                self.decoder, token_ids, lengths, request, room, capacity
            )
        return loop.without_caches(state)

    def token_log_probs(self, inputs, targets):
        """Returns float32 [B, T]: the log probability of every target.

        Args:
            inputs: What the model reads, [B, T] tokens of the text among it.
            targets: Int32 [B, T], the tokens after those.
        """
        hidden = self.trunk(inputs, training=False)
        batch, time = tf.unstack(tf.shape(targets))
        row_logits = self.model.config.vocab_size * tf.maximum(batch, 1)
        chunk = tf.maximum(_SCORE_LOGITS // row_logits, 1)
        chunks = (time + chunk - 1) // chunk
        array = tf.TensorArray(
            tf.float32, size=chunks, infer_shape=False, element_shape=[None]
        )

        def add(i, array):
            part = slice(i * chunk, (i + 1) * chunk)
            logits = tf.cast(self.project(hidden[:, part]), tf.float32)
            logits = logits[:, :, : self.tokenizer.vocab_size]
            chosen = tf.gather(logits, targets[:, part], batch_dims=2)
            log_probs = chosen - tf.reduce_logsumexp(logits, axis=-1)
            # Time first, so that the chunks can be joined.
            return i + 1, array.write(i, tf.reshape(tf.transpose(log_probs), [-1]))

        _, array = tf.while_loop(lambda i, _: i < chunks, add, (0, array))
        return tf.transpose(tf.reshape(array.concat(), [time, batch]))


def scores(log_probs, completion, num_tokens):
    """Returns what `PromptModel.score` does, from log probabilities [B, T].

    Those of anything but the completion's own tokens are 0.
    """
    total = tf.reduce_sum(log_probs, axis=1)
    num_bytes = tf.cast(tf.strings.length(completion), tf.float32)
    return {
        "log_prob": total,
        "num_tokens": num_tokens,
        "bits_per_byte": tf.math.divide_no_nan(-total / math.log(2), num_bytes),
    }


def right_padded(rows, columns):
    """Returns [B, T] with T at least `columns`, also where there is no row."""
    token_ids = rows.to_tensor()
    missing = tf.maximum(columns - tf.shape(token_ids)[1], 0)
    return tf.pad(token_ids, [[0, 0], [0, missing]])


def _power_of_two(size):
    """Returns the smallest power of two from 16 up that holds `size`."""
    powers = tf.constant([_SMALLEST_BUCKET * 2**i for i in range(27)])
    return tf.gather(powers, tf.searchsorted(powers, [size])[0])
