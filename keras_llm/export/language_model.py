"""An exported language model: signatures over its text functions."""

import tensorflow as tf

from keras_llm import models
from keras_llm.export.servable import Function, Servable
from keras_llm.generation import BeamSearch, make_prompt_model
from keras_llm.generation import parameters as parameters_lib
from keras_llm.generation.parameters import Parameters
from keras_llm.models.prompts import prompt_ids
from keras_llm.tokenizers import ChatEncoder

_FLOATS = tf.TensorSpec([None], tf.float32)
_NEW_TOKENS = 12
_CHAT_TOKENS = 6
_PROMPTS = ("", "The", "Call me Ishmael.", "一二三，café 🙂\n\t  x")
# Of several messages, and of fewer, which are filled up.
_ROLES = ("user", "assistant", "user"), ("system", "user", ""), ("user", "", "")
_CONTENTS = ("Hi", "Yes?", "<|im_end|>"), ("Be kind.", "一 🙂", ""), ("a", "", "")
_CHAT_EXAMPLE = """
A conversation, by the signature `chat`:

```bash
curl -d '{"signature_name": "chat", "instances": [{"roles": ["user"],
  "contents": ["QUESTION"], "stop": [""], "max_new_tokens": NEW_TOKENS,
  "temperature": 0.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0,
  "repetition_penalty": 1.0, "seed": 0}]}' \\
  http://127.0.0.1:8501/v1/models/{name}:predict
```
"""
_PROMPT_NOTE = """
A prompt of PROMPT_TOKENS learnt vectors stands before each conversation of `chat`. The
other signatures have no place for it: they answer as the model that it was learnt on.
"""
_EXAMPLE = """```bash
curl -d '{"instances": ["TEXT"]}' \\
  http://127.0.0.1:8501/v1/models/{name}:predict
```

With every knob, by the signature `generate`:

```bash
curl -d '{"signature_name": "generate", "instances": [{"prompt": "TEXT", "stop": [""],
  "max_new_tokens": NEW_TOKENS, "temperature": 0.8, "top_k": 0, "top_p": 0.95,
  "min_p": 0.0, "repetition_penalty": 1.0, "seed": 7}]}' \\
  http://127.0.0.1:8501/v1/models/{name}:predict
```
"""


class LanguageModelServable(Servable):
    """The signatures of a model that writes a text for a prompt.

    An encoder-decoder, whose prompt is its source, has `beam_search` too.

    Args:
        model: A built model that has a decoder.
        tokenizer: Its tokenizer.
        jit: Whether decoding is compiled by XLA.
        weights: The variables that the model computes with.
    """

    def __init__(self, model, tokenizer, jit, weights):
        super().__init__(model, tokenizer, jit, weights)
        # What has the functions that are exported.
        self.text_model = make_prompt_model(model, tokenizer, jit)
        self._beams = None
        if not self.text_model.decoder.prompt_in_cache:
            self._beams = BeamSearch(model, tokenizer)
        several = models.several_adapters(model)
        self._adapters = ("", *several.names) if several else ()
        self._chats = self._beams is None and tokenizer.chat is not None
        self._state = self._state_types()

    def functions(self) -> dict[str, Function]:
        """Returns what answers each signature, by signature name."""
        text = tf.TensorSpec([None], tf.string)
        ids = tf.TensorSpec([None, None], tf.int32)
        row = tf.TensorSpec([None], tf.int32)
        knobs = {n: tf.TensorSpec([None], d) for n, d in parameters_lib.DTYPES.items()}
        # Of a model with several adapters, which one each row takes.
        adapter = {"adapter": text} if self._adapters else {}
        asked = {"stop": tf.TensorSpec([None, None], tf.string), **knobs, **adapter}
        state = self._state_specs()
        beams = {"num_beams": row, "max_new_tokens": row, "length_penalty": _FLOATS}
        optional: dict[str, Function] = {}
        if self._chats:
            rows = tf.TensorSpec([None, None], tf.string)
            said = {"roles": rows, "contents": rows}
            optional["chat"] = self.chat, {**said, **asked}
        if self._beams:
            beams |= {"prompt": text, **adapter}
            optional["beam_search"] = self.beam_search, beams
        rows = {"token_ids": ids, "lengths": row}
        return {
            **optional,
            "serving_default": (self.serving_default, {"prompt": text}),
            "generate": (self.generate, {"prompt": text, **asked}),
            "score": (self.score, {"prompt": text, "completion": text, **adapter}),
            "tokenize": (self.tokenize, {"text": text}),
            "generate_ids": (self.generate_ids, {**rows, **knobs}),
            "prefill": (self.prefill, {**rows, "capacity": row}),
            "decode_step": (self.decode_step, {"token_ids": row, **state}),
        }

    def serving_default(self, prompt):
        """Continues each prompt greedily, by 64 tokens or the room that is left."""
        knobs = parameters_lib.make(tf.shape(prompt)[0])
        stop = tf.zeros([tf.shape(prompt)[0], 0], tf.string)
        return {"text": self.text_model.generate(prompt, knobs, stop)["text"]}

    def generate(self, prompt, stop, adapter=None, **knobs):
        """Continues each prompt by its own parameters."""
        return self.text_model.generate(prompt, Parameters(**knobs), stop, adapter)

    def chat(self, roles, contents, stop, adapter=None, **knobs):
        """Writes the assistant's next reply in each conversation."""
        knobs = Parameters(**knobs)
        return self.text_model.chat(roles, contents, knobs, stop, adapter)

    def beam_search(
        self, prompt, num_beams, max_new_tokens, length_penalty, adapter=None
    ):
        """Returns all beams of each prompt, the best first."""
        return self._beams.search_texts(
            prompt, num_beams, max_new_tokens, length_penalty, adapter
        )

    def score(self, prompt, completion, adapter=None):
        """Returns how likely each completion is after its prompt."""
        return self.text_model.score(prompt, completion, adapter)

    def tokenize(self, text):
        """Returns each text's token ids."""
        return self.text_model.tokenize(text)

    def generate_ids(self, token_ids, lengths, **knobs):
        """Continues prompts given as ids."""
        return self.text_model.generate_ids(token_ids, lengths, Parameters(**knobs))

    def prefill(self, token_ids, lengths, capacity):
        """Reads prompts; returns logits and the state for `decode_step`.

        `capacity` counts the tokens that a row may come to hold (of an encoder-decoder
        those of the target alone); the greatest of the batch is used for all.
        """
        token_ids, lengths = self.text_model.check_ids(token_ids, lengths)
        limit, decoder = self.text_model.limit, self.text_model.decoder
        slots = tf.reduce_max(tf.concat([[1], capacity], 0))
        least, rule = 1, "1"
        if decoder.prompt_in_cache:
            least, rule = tf.shape(token_ids)[1], "the prompts' padded length"
        fits = tf.debugging.Assert(
            (slots >= least) & (slots <= limit),
            [
                f"`capacity` must be at least {rule} and at most the {limit} positions "
                "that this model has. Received:",
                capacity,
            ],
            summarize=8,
        )
        with tf.control_dependencies([fits]):
            slots, token_ids = tf.identity(slots), tf.identity(token_ids)
        token_ids, slots = self.text_model.bounded(token_ids, slots)
        logits, state = decoder.prefill(token_ids, lengths, slots)
        return {"logits": logits, **_as_float32(state)}

    def decode_step(self, token_ids, **state):
        """Feeds one token per row; returns logits and the state after it."""
        decoder = self.text_model.decoder
        checks = [self._check_step(token_ids, state)]
        checks += [
            parameters_lib.require_rows(name, value, token_ids)
            for name, value in state.items()
        ]
        with tf.control_dependencies(checks):
            token_ids = tf.identity(token_ids)
        dtypes = self._state_dtypes()
        state = {name: tf.cast(value, dtypes[name]) for name, value in state.items()}
        state = _without_padding(state)
        logits, state = decoder.step(token_ids, state)
        return {"logits": logits, **_as_float32(state)}

    def warmup_requests(self):
        """Returns small requests to every signature that takes text."""
        prompt = tf.constant(["a"])
        room = self.text_model.room(self.text_model.encode_prompt(prompt)[1])
        knobs = {
            name: tf.constant([value], parameters_lib.DTYPES[name])
            for name, value in parameters_lib.DEFAULTS.items()
        }
        knobs["max_new_tokens"] = tf.minimum(4, room)
        adapter = {"adapter": tf.constant([""])} if self._adapters else {}
        knobs |= adapter
        sampled = {**knobs, "temperature": tf.constant([1.0])}
        optional = []
        if self._beams:
            inputs = {"prompt": prompt, "max_new_tokens": knobs["max_new_tokens"]}
            inputs |= {"num_beams": tf.constant([2]), "length_penalty": tf.ones(1)}
            inputs |= adapter
            optional = [("beam_search", inputs)]
        if self._chats:
            said = {"roles": tf.constant([["user"]]), "contents": tf.constant([["a"]])}
            optional = [("chat", {**said, "stop": tf.constant([[""]]), **knobs})]
        return [
            *optional,
            ("serving_default", {"prompt": prompt}),
            ("generate", {"prompt": prompt, "stop": tf.constant([[""]]), **knobs}),
            ("generate", {"prompt": prompt, "stop": tf.constant([["b"]]), **sampled}),
            ("score", {"prompt": prompt, "completion": prompt, **adapter}),
            ("tokenize", {"text": prompt}),
        ]

    def cases(self, answer):
        """Yields requests to every signature: a mixed batch, then single rows."""
        prompts = [text for text in _PROMPTS if self._fits(text)]
        knobs = [
            {
                **parameters_lib.DEFAULTS,
                "max_new_tokens": self._room(prompt),
                "temperature": float(i % 3 > 0) * 0.8,
                "top_k": 40 * (i % 2),
                "top_p": 0.9,
                "repetition_penalty": 1.0 + 0.1 * i,
                "seed": 10 + i,
            }
            for i, prompt in enumerate(prompts)
        ]
        stops = [["e", ""] if i % 2 else ["", ""] for i in range(len(prompts))]
        columns = {key: [row[key] for row in knobs] for key in knobs[0]}
        adapter = self._adapter_column(len(prompts))
        texts = {"prompt": prompts, "stop": stops, **columns, **adapter}
        # First, for it shows best what overflows.
        yield "score", {"prompt": prompts, "completion": prompts[::-1], **adapter}
        yield "tokenize", {"text": prompts}
        yield "generate", texts
        for i in range(len(prompts)):
            yield "generate", {key: values[i : i + 1] for key, values in texts.items()}
        yield "generate_ids", {**self._ids(prompts), **columns}
        yield "serving_default", {"prompt": prompts[:1]}
        if self._chats:
            yield from self._chat_cases()
        if self._beams:
            widths = [1 + i % 3 for i in range(len(prompts))]
            beams = {"num_beams": widths, "length_penalty": [0.6] * len(prompts)}
            rooms = {"max_new_tokens": columns["max_new_tokens"]}
            yield "beam_search", {"prompt": prompts, **beams, **rooms, **adapter}
        start = {**self._ids([""]), "capacity": [min(4, self.text_model.limit)]}
        yield "prefill", start
        state = answer("prefill", start)
        del state["logits"]
        yield "decode_step", {"token_ids": start["lengths"], **state}

    def example(self):
        """Returns commands that ask for a text, with and without the knobs."""
        limit = getattr(self.model.config, "max_positions", None)
        new_tokens = min(32, (limit or 64) // 2)
        example = _EXAMPLE + (_CHAT_EXAMPLE if self._chats else "")
        if learnt := len(prompt_ids(self.model)):
            example += _PROMPT_NOTE.replace("PROMPT_TOKENS", str(learnt))
        return example.replace("NEW_TOKENS", str(new_tokens))

    def _adapter_column(self, rows):
        """Returns names in turn, the last adapter's first; nothing without any."""
        names = self._adapters[::-1]
        if not names:
            return {}
        return {"adapter": [names[i % len(names)] for i in range(rows)]}

    def _chat_cases(self):
        """Yields conversations of unlike lengths, together and the longest alone.

        Those that leave room for a reply: a template, or a learnt prompt, may be long.
        """
        encoder = ChatEncoder(self.tokenizer)
        lengths = encoder.prompts(tf.constant(_ROLES), tf.constant(_CONTENTS))
        fits = lengths.row_lengths().numpy() + _CHAT_TOKENS <= self.text_model.limit
        roles, contents = (
            [list(row) for row, fit in zip(rows, fits, strict=True) if fit]
            for rows in (_ROLES, _CONTENTS)
        )
        count = len(roles)
        if not count:
            raise ValueError(
                "A chat model needs positions for a short conversation and a reply. "
                f"Received: {self.text_model.limit} positions. Give it more, or export "
                "it with a tokenizer without a template."
            )
        knobs = {k: [value] * count for k, value in parameters_lib.DEFAULTS.items()}
        knobs |= {"max_new_tokens": [_CHAT_TOKENS] * count, "stop": [[""]] * count}
        said = {"roles": roles, "contents": contents, **knobs}
        said |= self._adapter_column(count)
        yield "chat", said
        yield "chat", {name: values[:1] for name, values in said.items()}

    def _ids(self, prompts):
        token_ids, lengths = self.text_model.encode_prompt(tf.constant(prompts))
        return {
            "token_ids": token_ids.numpy().tolist(),
            "lengths": lengths.numpy().tolist(),
        }

    def _fits(self, text):
        """Whether the text, with another after it, is within the model's positions."""
        _, lengths = self.text_model.encode_prompt(tf.constant([text]))
        return 2 * int(lengths[0]) + 8 <= self.text_model.limit or text == ""

    def _room(self, text):
        _, lengths = self.text_model.encode_prompt(tf.constant([text]))
        return min(_NEW_TOKENS, int(self.text_model.room(lengths)[0]))

    def _check_step(self, token_ids, state):
        vocab = self.text_model.model.config.vocab_size
        holds = tf.reduce_all((token_ids >= 0) & (token_ids < vocab))
        rule = f"Token ids must lie from 0 to {vocab - 1}"
        values = [token_ids]
        if "keys_0" in state:
            capacity = tf.shape(state["keys_0"])[2]
            position = state["position"]
            holds &= tf.reduce_all((position >= 0) & (position < capacity))
            rule += ", and positions below the state's capacity"
            values += [position, capacity]
        return tf.debugging.Assert(holds, [f"{rule}. Received:", *values], summarize=8)

    def _state_types(self):
        """Returns the state's types: unlike batches show which sizes are free."""
        one, two = (self._example_state(size) for size in (1, 2))
        types = {}
        for name, value in one.items():
            sizes = zip(value.shape, two[name].shape, strict=True)
            shape = [a if a == b else None for a, b in sizes]
            types[name] = tf.TensorSpec(shape, value.dtype)
        return types

    def _example_state(self, size):
        """Returns the state of `size` rows of as many tokens and slots, if they fit."""
        length = min(size, self.text_model.limit)
        token_ids, lengths = tf.zeros([size, length], tf.int32), tf.fill([size], length)
        return self.text_model.decoder.prefill(token_ids, lengths, length)[1]

    def _state_dtypes(self):
        return {name: spec.dtype for name, spec in self._state.items()}

    def _state_specs(self):
        return {
            name: tf.TensorSpec(spec.shape, _served_dtype(spec.dtype))
            for name, spec in self._state.items()
        }


def _without_padding(state):
    """Returns the state with zeros in all slots from each row's position on.

    Joining requests of unlike capacities, TF Serving fills the shorter one's new
    slots with a copy of its first value; a step adds to a slot, which must be zero.
    """
    if "position" not in state:
        return state

    def cleaned(name, value):
        if not name.startswith(("keys_", "values_")):
            return value
        slot_1C = tf.range(tf.shape(value)[2])[None]
        is_filled_BC = slot_1C < state["position"][:, None]
        return tf.where(is_filled_BC[:, None, :, None], value, tf.zeros_like(value))

    return {name: cleaned(name, value) for name, value in state.items()}


def _as_float32(state):
    """Returns the state in dtypes that a request can carry."""
    return {n: tf.cast(value, _served_dtype(value.dtype)) for n, value in state.items()}


def _served_dtype(dtype):
    return tf.float32 if dtype in (tf.bfloat16, tf.float16) else dtype
