"""The signatures of an exported language model, over its text functions."""

import tensorflow as tf

from keras_llm.generation import TextModel
from keras_llm.generation import parameters as parameters_lib
from keras_llm.generation.parameters import Parameters


class Servable(tf.Module):
    """What is written: the model's weights and one function per signature.

    Every input has rank 1 or more and every output leads with the batch, so that
    TF Serving can put requests together.

    Args:
        text_model: The model and its tokenizer.
        weights: The variables that the model computes with.
    """

    def __init__(self, text_model: TextModel, weights):
        super().__init__()
        # In lists: not to be tracked themselves.
        self._text_model = [text_model]
        # A SavedModel finds TensorFlow's variables, not Keras' wrappers of them.
        self.weights = [weight.value for weight in weights]
        self._state = [self._example_state()]

    @property
    def text_model(self) -> TextModel:
        """Returns the model whose functions are exported."""
        return self._text_model[0]

    def signatures(self) -> dict:
        """Returns the traced functions by signature name."""
        text = tf.TensorSpec([None], tf.string)
        ids = tf.TensorSpec([None, None], tf.int32)
        row = tf.TensorSpec([None], tf.int32)
        knobs = {n: tf.TensorSpec([None], d) for n, d in parameters_lib.DTYPES.items()}
        stop = tf.TensorSpec([None, None], tf.string)
        state = self._state_specs()
        return {
            "serving_default": _trace(self.serving_default, prompt=text),
            "generate": _trace(self.generate, prompt=text, stop=stop, **knobs),
            "score": _trace(self.score, prompt=text, completion=text),
            "tokenize": _trace(self.tokenize, text=text),
            "generate_ids": _trace(
                self.generate_ids, token_ids=ids, lengths=row, **knobs
            ),
            "prefill": _trace(self.prefill, token_ids=ids, lengths=row, capacity=row),
            "decode_step": _trace(self.decode_step, token_ids=row, **state),
        }

    def serving_default(self, prompt):
        """Continues each prompt greedily, by 64 tokens or the room that is left."""
        knobs = parameters_lib.make(tf.shape(prompt)[0])
        stop = tf.zeros([tf.shape(prompt)[0], 0], tf.string)
        return {"text": self.text_model.generate(prompt, knobs, stop)["text"]}

    def generate(self, prompt, stop, **knobs):
        """Continues each prompt by its own parameters."""
        return self.text_model.generate(prompt, Parameters(**knobs), stop)

    def score(self, prompt, completion):
        """Returns how likely each completion is after its prompt."""
        return self.text_model.score(prompt, completion)

    def tokenize(self, text):
        """Returns each text's token ids."""
        return self.text_model.tokenize(text)

    def generate_ids(self, token_ids, lengths, **knobs):
        """Continues prompts given as ids."""
        return self.text_model.generate_ids(token_ids, lengths, Parameters(**knobs))

    def prefill(self, token_ids, lengths, capacity):
        """Reads prompts; returns logits and the state for `decode_step`.

        `capacity` counts the tokens that a row may come to hold; the greatest of
        the batch is used for all.
        """
        token_ids, lengths = self.text_model.check_ids(token_ids, lengths)
        limit = self.text_model.limit
        slots = tf.reduce_max(tf.concat([[1], capacity], 0))
        fits = tf.debugging.Assert(
            (slots >= tf.shape(token_ids)[1]) & (slots <= limit),
            [
                "`capacity` must be at least the prompts' padded length and at most "
                f"the {limit} positions that this model has. Received:",
                capacity,
            ],
            summarize=8,
        )
        with tf.control_dependencies([fits]):
            slots, token_ids = tf.identity(slots), tf.identity(token_ids)
        logits, state = self.text_model.decoder.prefill(token_ids, lengths, slots)
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

    def _example_state(self):
        """Returns the state's types, from a prompt of unknown size."""
        prefill = tf.function(self.text_model.decoder.prefill, autograph=False)
        traced = prefill.get_concrete_function(
            tf.TensorSpec([None, None], tf.int32),
            tf.TensorSpec([None], tf.int32),
            tf.TensorSpec([], tf.int32),
        )
        return traced.structured_outputs[1]

    def _state_dtypes(self):
        return {name: value.dtype for name, value in self._state[0].items()}

    def _state_specs(self):
        return {
            name: tf.TensorSpec(value.shape, _served_dtype(value.dtype))
            for name, value in self._state[0].items()
        }


def _trace(method, **specs):
    function = tf.function(method, autograph=False)
    return function.get_concrete_function(**specs)


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
