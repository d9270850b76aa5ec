"""What the decoder-only Transformers share: checks, head, and cached decoding."""

import abc

import keras
from keras import ops

from keras_llm.core import checks
from keras_llm.layers import DocumentLayout
from keras_llm.ops import cache as caches
from keras_llm.ops import masks


def check_sizes(config) -> None:
    """Raises ValueError unless a Transformer config's numbers fit together."""
    checks.check_not_negative("vocab_size", config.vocab_size)
    for name in ("max_positions", "width", "num_layers", "num_heads"):
        checks.check_positive(name, getattr(config, name))
    if config.feed_forward_width is not None:
        checks.check_positive("feed_forward_width", config.feed_forward_width)
    if getattr(config, "head_size", None) is None:
        checks.check_divides("num_heads", config.num_heads, "width", config.width)
    if not 0 <= config.dropout < 1:
        raise ValueError(
            "`dropout` must be at least 0 and below 1. "
            f"Received: dropout={config.dropout}."
        )
    checks.check_not_negative("epsilon", config.epsilon)
    separator_id = getattr(config, "separator_id", None)
    if separator_id is not None:
        checks.check_not_negative("separator_id", separator_id)
        if config.vocab_size and not separator_id < config.vocab_size:
            raise ValueError(
                "`separator_id` must be an id of the vocabulary. Received: "
                f"separator_id={separator_id}, vocab_size={config.vocab_size}."
            )


def check_buildable(config) -> None:
    """Raises ValueError while the vocabulary's size is still open."""
    checks.check_positive(
        "vocab_size",
        config.vocab_size,
        "0 stands for the tokenizer's size: fill it in with "
        "config.replace(vocab_size=tokenizer.vocab_size).",
    )


def check_capacity(length, capacity, max_positions) -> None:
    """Raises ValueError where a prompt or a cache is longer than allowed.

    Sizes known only when the graph runs are not checked here.
    """
    for name, value in (("prompt length", length), ("capacity", capacity)):
        if isinstance(value, int) and not 0 < value <= max_positions:
            raise ValueError(
                f"The {name} must lie from 1 to max_positions={max_positions}, the "
                f"positions that this model has. Received: {value}. Shorten the "
                "prompt or ask for fewer tokens."
            )
    if isinstance(length, int) and isinstance(capacity, int) and capacity < length:
        raise ValueError(
            "The cache's capacity must hold the whole prompt. Received: "
            f"capacity={capacity}, prompt length={length}."
        )


def normal(residual_layers: int = 1):
    """Returns GPT-2's initializer, a normal distribution of deviation 0.02.

    Args:
        residual_layers: How many projections add to the residual stream, for one
            of them: divided by its root, the stream's variance does not grow with
            depth.
    """
    return keras.initializers.RandomNormal(stddev=0.02 / residual_layers**0.5)


def output_head(model: keras.Model, compiled: bool = False):
    """Returns the function from hidden states [..., D] to float32 logits [..., V].

    It is the layer "head" where there is one, else the transposed embedding. With
    `compiled`, for a caller that XLA compiles, the states are one per row: [B, D].
    """
    if any(layer.name == "head" for layer in model.layers):
        head = model.get_layer("head")
        return lambda hidden: ops.cast(head(hidden), "float32")
    embedding = model.get_layer("token_embedding")
    soft_cap = getattr(model.config, "logit_soft_cap", None)
    if compiled:
        return lambda hidden_BD: soft_capped(
            embedding.next_token_logits(hidden_BD, compiled=True), soft_cap
        )
    return lambda hidden: soft_capped(embedding(hidden, reverse=True), soft_cap)


def soft_capped(logits, soft_cap: float | None):
    """Returns logits bounded to -soft_cap..soft_cap by a tanh; None for no bound."""
    if soft_cap is None:
        return logits
    # A tensor, since Keras takes the product of a symbolic one and a number for a
    # sparse one; on the right, since on JAX only a Keras tensor can be on the left.
    cap = ops.convert_to_tensor(soft_cap, "float32")
    return ops.tanh(logits / cap) * cap


def forward_flops(config, context: int) -> int:
    """Returns the multiply-adds of one token's forward pass, times two.

    Every weight of a matrix is used once per token; attention over `context`
    tokens adds two products of N H per token and layer. The causal half is not
    taken off, as in Chowdhery et al. 2022, appendix B.
    """
    heads, width = config.num_heads, config.width
    size = getattr(config, "head_size", None) or width // heads
    shared = getattr(config, "key_value_heads", None) or heads
    gated = 3 if config.architecture in ("gemma", "llama") else 2
    per_layer = width * size * (2 * heads + 2 * shared)
    per_layer += gated * width * config.inner_dim
    per_layer += 2 * heads * size * context
    return 2 * (config.num_layers * per_layer + config.vocab_size * width)


def step_blocks(blocks, x_BD, state, position, biases, jit):
    """Runs one token per row through decoder blocks, each against its caches.

    Args:
        blocks: The decoder blocks, in their order.
        x_BD: What enters the first.
        state: Holds `keys_i` and `values_i` of block i.
        position: Int32 [B], the slot that the token fills.
        biases: For each block float32 [B, 1, 1, C]: which slots it sees, the token's
            own included.
        jit: Whether XLA compiles the caller.

    Returns:
        What leaves the last block [B, D], and the new `keys_i` and `values_i`.
    """
    # All that depends on the position alone, once for all blocks.
    slots = caches.slots(position, state["keys_0"].shape[1])
    rotary = blocks[0].attention.rotary(position[:, None])
    new = {}
    for i, block in enumerate(blocks):
        keys, values = f"keys_{i}", f"values_{i}"
        x_BD, new[keys], new[values] = block.step(
            x_BD, state[keys], state[values], slots, biases[i], rotary, jit
        )
    return x_BD, new


class TransformerDecoder(abc.ABC):
    """Cached decoding over the very layers of a built model.

    The state is a dict of tensors with leading dimension B: `keys_0`, `values_0`,
    and so on, each [B, K, C, H], zero from slot `position` on; `position` int32
    [B], the next slot to write; and, where documents are kept apart,
    `segment_start` int32 [B], the position at which the current document began.

    Args:
        model: A built model.
        jit: Whether XLA will compile `step`. Otherwise TensorFlow writes to the
            caches in place by an op that XLA lacks.
    """

    prompt_in_cache = True  # The text goes on where the prompt ends.

    def __init__(self, model: keras.Model, jit: bool = False):
        self.model = model
        self.jit = jit
        self.config = model.config
        self.blocks = [
            model.get_layer(f"block_{i}") for i in range(self.config.num_layers)
        ]
        self.token_embedding = model.get_layer("token_embedding")
        self.window = getattr(self.config, "window", None)
        self.documents = DocumentLayout(self.config.separator_id, self.window)
        self.final_norm = model.get_layer("final_norm")
        self.project = output_head(model, jit)

    @abc.abstractmethod
    def embed(self, token_ids, positions):
        """Returns what enters the first block; positions count per document."""

    def prefill_layout(self, token_ids):
        """Returns positions [B or 1, T] and each block's bias [B or 1, 1, T, T]."""
        positions, bias = self.documents(token_ids)
        return positions, [bias] * self.config.num_layers

    def step_biases(self, position, capacity, start):
        """Returns each block's bias [B, 1, 1, C].

        Args:
            position: Int32 [B], the slot of the current token.
            capacity: C.
            start: Int32 [B], the current document's first slot; None for 0.
        """
        bias = masks.as_bias(masks.cached(position, capacity, self.window, start))
        return [bias] * self.config.num_layers

    def prefill(self, token_ids, lengths, capacity):
        """Runs right-padded prompts.

        Args:
            token_ids: Int32 [B, T].
            lengths: Int32 [B], each from 1 to T: the real tokens of each row.
            capacity: C >= T, the slots of the cache; int or scalar tensor.

        Returns:
            Logits float32 [B, V] after each row's last real token, and the state.

        Raises:
            ValueError: A prompt or a capacity longer than the model's positions.
        """
        check_capacity(token_ids.shape[1], capacity, self.config.max_positions)
        lengths = ops.cast(lengths, "int32")
        length = ops.shape(token_ids)[1]
        time_1T = ops.arange(length, dtype="int32")[None]
        positions, biases = self.prefill_layout(token_ids)
        rotary = self.blocks[0].attention.rotary(time_1T)
        real_BT = masks.real_tokens(lengths, length)
        x = self.embed(token_ids, positions)
        state = {}
        for i, block in enumerate(self.blocks):
            x, state[f"keys_{i}"], state[f"values_{i}"] = block.prefill(
                x, real_BT, capacity, biases[i], rotary
            )
        last = ops.maximum(lengths - 1, 0)[:, None]
        hidden_BD = ops.take_along_axis(x, last[:, :, None], axis=1)[:, 0]
        state["position"] = lengths
        if self.config.separator_id is not None:
            starts = time_1T - positions
            state["segment_start"] = ops.take_along_axis(starts, last, axis=1)[:, 0]
        return self.project(self.final_norm(hidden_BD)), state

    def step(self, token_ids, state):
        """Runs one token per row.

        Args:
            token_ids: Int32 [B].
            state: From `prefill` or `step`. What a row gets whose cache is full
                means nothing.

        Returns:
            Logits float32 [B, V] for the token after it, and the new state.
        """
        capacity = ops.shape(state["keys_0"])[2]
        # A row that its caller has no more use for may run on in a full cache; it
        # stays in the last slot, where it disturbs no other row.
        position = ops.minimum(state["position"], capacity - 1)
        start = state.get("segment_start")
        if start is not None:
            opens = ops.equal(token_ids, self.config.separator_id)
            start = ops.where(opens, position, start)
        biases = self.step_biases(position, capacity, start)
        x = self.embed(token_ids, position if start is None else position - start)
        x, new_state = step_blocks(self.blocks, x, state, position, biases, self.jit)
        new_state["position"] = position + 1
        if start is not None:
            new_state["segment_start"] = start
        return self.project(self.final_norm(x)), new_state
