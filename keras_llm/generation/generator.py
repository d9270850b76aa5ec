"""Generation from Python: batches, streams and scores."""

import codecs
import contextlib
import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence

import tensorflow as tf

from keras_llm.generation import loop, stopping
from keras_llm.generation import parameters as parameters_lib
from keras_llm.generation.sequence_to_sequence import make_prompt_model
from keras_llm.tokenizers import ChatEncoder
from keras_llm.tokenizers.chat_format import check_messages


@dataclasses.dataclass(frozen=True, kw_only=True)
class Generation:
    """One prompt's continuation.

    Attributes:
        text: The continuation; bytes that are no UTF-8 became U+FFFD.
        token_ids: The tokens written, a final end token included.
        log_probs: Natural logarithm of each token's probability under the model.
        finish_reason: "stop" (a stop string), "length" or "end" (the end token).
        prompt_tokens: Tokens read, at least 1.
    """

    text: str
    token_ids: list[int]
    log_probs: list[float]
    finish_reason: str
    prompt_tokens: int


class Generator:
    """Generates text with a model in memory.

    Args:
        model: A built language model, or an encoder-decoder: then a prompt is a
            source and the continuation its target.
        tokenizer: Its tokenizer.
        jit: Whether decoding is compiled by XLA: slow at the first call of each
            size, faster after it.
    """

    def __init__(self, model, tokenizer, jit=False):
        self.text_model = make_prompt_model(model, tokenizer, jit)
        text = tf.TensorSpec([None], tf.string)
        rows = {n: tf.TensorSpec([None], d) for n, d in parameters_lib.DTYPES.items()}
        knobs = parameters_lib.Parameters(**rows)
        request = [text, knobs, tf.TensorSpec([None, None], tf.string), text]
        self._generate = tf.function(
            self.text_model.generate, input_signature=request, autograph=False
        )
        self._begin = tf.function(
            self._begin_ids, input_signature=request, autograph=False
        )
        self._score = tf.function(
            self.text_model.score, input_signature=[text] * 3, autograph=False
        )

    def generate(
        self, prompts: Sequence[str | bytes], stop=(), adapter=None, **parameters
    ):
        """Continues every prompt; a row's result does not depend on the others.

        Args:
            prompts: The texts to continue.
            stop: Strings before which the text ends, for every row; or one
                sequence of strings per prompt.
            adapter: Of a model with several (`models.add_adapters`), the name of the
                one that a prompt takes: one for all, or one per prompt; "" or None
                for none.
            **parameters: Fields of `generation.Parameters`: one value for all rows,
                or one per row.

        Returns:
            A list of `Generation`, one per prompt.

        Raises:
            ValueError: A parameter or an adapter is unknown, a value out of range, or
                a prompt too long.
        """
        check_texts("prompts", prompts)
        request = self._request(prompts, stop, adapter, parameters)
        with readable_errors():
            return _generations(self._generate(*request))

    def chat(self, conversations: Sequence[Sequence[Mapping[str, str]]], **parameters):
        """Writes the assistant's next reply in each conversation.

        Args:
            conversations: Lists of messages {"role": ..., "content": ...}: one of the
                "system" first, if any, then "user" and "assistant" in turn, the user
                last.
            **parameters: `stop`, `adapter` and fields of `generation.Parameters`, as
                in `generate`.

        Returns:
            A list of `Generation`, one per conversation.

        Raises:
            ValueError: The tokenizer knows no template; a message of another role or
                out of turn; or as `generate` does.
        """
        ChatEncoder(self.text_model.tokenizer)
        for conversation in conversations:
            check_messages(conversation)
        stop, adapter = parameters.pop("stop", ()), parameters.pop("adapter", None)
        names = self.text_model.adapters.column(adapter, len(conversations))
        roles, contents = (
            _filled_up([[message[name] for message in row] for row in conversations])
            for name in ("role", "content")
        )
        knobs = parameters_lib.make(len(conversations), **parameters)
        stops = stop_rows(stop, len(conversations))
        with readable_errors():
            return _generations(self._chat(roles, contents, knobs, stops, names))

    @functools.cached_property
    def _chat(self):
        return tf.function(self.text_model.chat, autograph=False, reduce_retracing=True)

    def score(
        self,
        prompts: Sequence[str | bytes],
        completions: Sequence[str | bytes],
        adapter: str | Sequence[str] | None = None,
    ):
        """Returns log probability, tokens and bits per byte of each completion.

        Args:
            prompts: What stands before.
            completions: One per prompt.
            adapter: As in `generate`.

        Returns:
            Dict of NumPy arrays [B]: `log_prob`, `num_tokens`, `bits_per_byte`.
        """
        check_texts("prompts", prompts)
        check_texts("completions", completions)
        with readable_errors():
            result = self._score(
                tf.constant(list(prompts), tf.string, [len(prompts)]),
                tf.constant(list(completions), tf.string, [len(completions)]),
                self.text_model.adapters.column(adapter, len(prompts)),
            )
        return {name: value.numpy() for name, value in result.items()}

    def stream(
        self,
        prompt: str | bytes,
        stop: Sequence[str] = (),
        adapter: str | None = None,
        **parameters,
    ):
        """Yields pieces of the continuation as they are generated.

        Joined, they are the text that `generate` returns. A piece is held back
        while it could still turn into a stop string or into a whole character.

        Args:
            prompt: The text to continue.
            stop: Strings before which the text ends.
            adapter: As in `generate`.
            **parameters: Fields of `generation.Parameters`, one value each.

        Raises:
            ValueError: As `generate` does; at once, not with the first piece.
        """
        check_texts("prompt", [prompt])
        check_texts("stop", stop)
        with readable_errors():
            begun = self._begin(*self._request([prompt], stop, adapter, parameters))
        return _hold_back(
            self._token_pieces(*begun), [tf.compat.as_bytes(s) for s in stop if s]
        )

    def _request(self, prompts, stop, adapter, parameters):
        """Returns prompts, knobs, stop strings and adapters' names as tensors."""
        prompt = tf.constant(list(prompts), tf.string, [len(prompts)])
        knobs = parameters_lib.make(len(prompts), **parameters)
        if knobs.max_new_tokens is None:
            _, lengths = self.text_model.encode_prompt(prompt)
            knobs = parameters_lib.with_room(knobs, self.text_model.room(lengths))
        names = self.text_model.adapters.column(adapter, len(prompts))
        return prompt, knobs, stop_rows(stop, len(prompts)), names

    def _token_pieces(self, state, knobs, rows) -> Iterator[bytes]:
        words = self.text_model.tokenizer.token_bytes
        for i in range(int(knobs.max_new_tokens[0])):
            yield words[int(state.token_ids[0, i])]
            if int(state.finish[0]) != loop.RUNNING:
                return
            state = self._advance(state, knobs, rows)

    @functools.cached_property
    def _advance(self):
        # Traced once for all sizes: each prompt brings caches of its own.
        begun = self._begin.get_concrete_function().structured_outputs
        specs = tf.nest.map_structure(lambda x: tf.TensorSpec(x.shape, x.dtype), begun)
        return tf.function(self._advance_ids, input_signature=specs, autograph=False)

    def _begin_ids(self, prompt, knobs, stop, adapter):
        token_ids, lengths = self.text_model.encode_prompt(prompt)
        knobs = self.text_model.check(knobs, lengths)
        stopping.parse(stop)  # For its checks: the strings are looked for in Python.
        room = tf.maximum(knobs.max_new_tokens[0], 1)
        capacity = self.text_model.capacity(lengths[0], room)
        request = self.text_model.request(knobs)
        rows = self.text_model.adapters.rows(adapter, lengths)
        with self.text_model.adapters.using(rows):
            state = loop.begin(
                self.text_model.decoder, token_ids, lengths, request, room, capacity
            )
        return state, knobs, rows

    def _advance_ids(self, state, knobs, rows):
        request = self.text_model.request(knobs)
        with self.text_model.adapters.using(rows):
            return loop.advance(self.text_model.decoder, state, request)


def _generations(result):
    return [
        Generation(
            text=result["text"][i].numpy().decode(),
            token_ids=result["token_ids"][i, :count].numpy().tolist(),
            log_probs=result["log_probs"][i, :count].numpy().tolist(),
            finish_reason=result["finish_reason"][i].numpy().decode(),
            prompt_tokens=int(result["prompt_tokens"][i]),
        )
        for i, count in enumerate(result["num_tokens"].numpy())
    ]


def _filled_up(rows):
    """Returns string [B, M], "" where a row has fewer."""
    most = max(map(len, rows), default=0)
    padded = [row + [""] * (most - len(row)) for row in rows]
    return tf.constant(padded, tf.string, [len(rows), most])


@contextlib.contextmanager
def readable_errors():
    """Turns a failed check of the graph into a ValueError with its message."""
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        message = error.message.partition("assertion failed: ")[2] or error.message
        words = message.partition("\n")[0].removeprefix("[").replace("] [", " ")
        raise ValueError(words.removesuffix("]")) from error


def check_texts(name, texts):
    """Raises ValueError unless `texts` is a sequence of strings."""
    if isinstance(texts, (str, bytes)) or not all(
        isinstance(text, (str, bytes)) for text in texts
    ):
        raise ValueError(f"`{name}` must be a list of strings. Received: {texts!r}.")


def stop_rows(stop, batch):
    """Returns string [B, S], "" where a row has fewer."""
    if isinstance(stop, str):
        raise ValueError(f"`stop` must be a list of strings. Received: {stop!r}.")
    rows = [list(stop)] * batch
    if stop and not isinstance(stop[0], (str, bytes)):
        rows = [list(row) for row in stop]
        if len(rows) != batch:
            raise ValueError(
                "`stop` must hold strings, or one list of strings per prompt. "
                f"Received: {len(rows)} lists for {batch} prompts."
            )
    return _filled_up(rows)


def _hold_back(pieces: Iterator[bytes], stops: list[bytes]) -> Iterator[str]:
    """Yields text that can no longer change; ends before a stop string."""
    decode = codecs.getincrementaldecoder("utf-8")(errors="replace").decode
    held = b""
    for piece in pieces:
        # A stop string counts when it is complete, so of several the one that
        # begins first within this piece's reach.
        old, held = len(held), held + piece
        ends = [
            start
            for stop in stops
            if (start := held.find(stop, max(0, old - len(stop) + 1))) >= 0
        ]
        if ends:
            held = held[: min(ends)]
            break
        open_bytes = max(
            (
                n
                for stop in stops
                for n in range(1, len(stop))
                if held.endswith(stop[:n])
            ),
            default=0,
        )
        text = decode(held[: len(held) - open_bytes])
        held = held[len(held) - open_bytes :]
        if text:
            yield text
    if text := decode(held, final=True):
        yield text
