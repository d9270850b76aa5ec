"""Networks that write text from a latent: over a sequence, and token by token.

Each is a thin holder of layers by name, so that the functional model and its decoder
call the very same ones in the very same order.
"""

import keras
from keras import ops

from keras_llm.layers import (
    DecoderBlock,
    DocumentLayout,
    Dropout,
    LayerNorm,
    LearnedPositions,
    Linear,
    RecurrentBlock,
)
from keras_llm.models.transformer import normal, step_blocks
from keras_llm.ops import masks


def writer(config, layers):
    """Returns the writer that `config.decoder` names.

    Args:
        config: A `TextVAEConfig`.
        layers: Layers by name: `token_embedding` and those from `writer_layers`.
    """
    kind = LSTMWriter if config.decoder == "lstm" else TransformerWriter
    return kind(config.num_layers, layers)


def writer_layers(config, dtype):
    """Returns the new layers by name that the writer of a config needs."""
    kind = LSTMWriter if config.decoder == "lstm" else TransformerWriter
    made = [
        Dropout(config.dropout, name="embedding_dropout", dtype=dtype),
        *kind.layers(config, dtype),
    ]
    return {layer.name: layer for layer in made}


class LSTMWriter:
    """Stacked LSTMs that start from the latent and read it at every step.

    c_0 = z @ W + b and h_0 = tanh(c_0) for each layer; the first one reads
    [embedding, z].

    Source: Bowman et al. 2016, section 3, https://arxiv.org/abs/1511.06349 (z as the
    first state); He et al. 2019, https://arxiv.org/abs/1901.05534 (and at each step).

    Args:
        num_layers: Of the stack.
        layers: Layers by name.
    """

    def __init__(self, num_layers, layers):
        self.token_embedding = layers["token_embedding"]
        self.embedding_dropout = layers["embedding_dropout"]
        self.latent_states = [layers[f"latent_state_{i}"] for i in range(num_layers)]
        self.blocks = [layers[f"block_{i}"] for i in range(num_layers)]
        self.final_norm = layers["final_norm"]

    @staticmethod
    def layers(config, dtype):
        """Returns what the writer needs beside embedding and dropout."""
        made = [keras.layers.Identity(name="final_norm", dtype=dtype)]
        for i in range(config.num_layers):
            made += [
                Linear(config.width, name=f"latent_state_{i}", dtype=dtype),
                RecurrentBlock(
                    config.width, dropout=config.dropout, name=f"block_{i}", dtype=dtype
                ),
            ]
        return made

    def sequence(self, token_ids, z):
        """Returns hidden states [B, T, D] for ids [B, T] and latents [B, Z]."""
        x = self.embedding_dropout(self.token_embedding(token_ids))
        # Times ones it stands at every step. (Plus zeros would not do: of one row
        # with T = Z, Keras takes zeros [1, T, 1] for a bias over the last axis.)
        z_BTZ = ops.cast(z, x.dtype)[:, None] * ops.ones_like(x[..., :1])
        x = ops.concatenate([x, z_BTZ], axis=-1)
        for block, latent_state in zip(self.blocks, self.latent_states, strict=True):
            x = block(x, initial_state=_first_state(latent_state, z))
        return self.final_norm(x)

    def initial_state(self, z, capacity):
        """Returns the state before any token; it does not grow with `capacity`."""
        del capacity
        state = {"z": z}
        for i, latent_state in enumerate(self.latent_states):
            h, c = _first_state(latent_state, z)
            state[f"h_{i}"] = h
            state[f"c_{i}"] = ops.cast(c, self.blocks[i].lstm.state_dtype)
        return state

    def step(self, token_ids, state, jit):
        """Returns hidden states [B, D] for ids [B], and the new state."""
        del jit
        x, new_state = self.token_embedding(token_ids), {"z": state["z"]}
        x = ops.concatenate([x, ops.cast(state["z"], x.dtype)], axis=-1)
        for i, block in enumerate(self.blocks):
            x, (h, c) = block.step(x, (state[f"h_{i}"], state[f"c_{i}"]))
            new_state[f"h_{i}"], new_state[f"c_{i}"] = h, c
        return self.final_norm(x), new_state


def _first_state(latent_state, z):
    c = latent_state(z)
    return ops.tanh(c), c


class TransformerWriter:
    """Decoder blocks over embeddings to which the latent is added at every position.

    x_t = token + position + z @ W: every block sees it through the residual stream,
    and a cache holds nothing new.

    Source: Li et al. 2020, section 3.1 ("embedding" scheme),
    https://arxiv.org/abs/2004.04092.

    Args:
        num_layers: Of the stack.
        layers: Layers by name.
    """

    def __init__(self, num_layers, layers):
        self.token_embedding = layers["token_embedding"]
        self.embedding_dropout = layers["embedding_dropout"]
        self.position_embedding = layers["position_embedding"]
        self.latent_embedding = layers["latent_embedding"]
        self.documents = layers["documents"]
        self.blocks = [layers[f"block_{i}"] for i in range(num_layers)]
        self.final_norm = layers["final_norm"]

    @staticmethod
    def layers(config, dtype):
        """Returns what the writer needs beside embedding and dropout."""
        return [
            LearnedPositions(
                config.max_positions,
                config.width,
                normal(),
                name="position_embedding",
                dtype=dtype,
            ),
            Linear(config.width, False, normal(), name="latent_embedding", dtype=dtype),
            DocumentLayout(None, name="documents", dtype=dtype),
            *(
                DecoderBlock(
                    config.num_heads,
                    config.inner_dim,
                    activation="gelu_tanh",
                    dropout=config.dropout,
                    epsilon=config.epsilon,
                    kernel_initializer=normal(),
                    output_initializer=normal(2 * config.num_layers),
                    name=f"block_{i}",
                    dtype=dtype,
                )
                for i in range(config.num_layers)
            ),
            LayerNorm(config.epsilon, name="final_norm", dtype=dtype),
        ]

    def sequence(self, token_ids, z):
        """Returns hidden states [B, T, D] for ids [B, T] and latents [B, Z]."""
        positions, bias = self.documents(token_ids)
        x = self._embed(token_ids, positions, self.latent_embedding(z)[:, None])
        x = self.embedding_dropout(x)
        for block in self.blocks:
            x = block(x, bias=bias)
        return self.final_norm(x)

    def initial_state(self, z, capacity):
        """Returns the state before any token: empty caches of `capacity` slots."""
        state = {"z": z, "position": ops.zeros_like(z[:, 0], dtype="int32")}
        for i, block in enumerate(self.blocks):
            size = self.token_embedding.width // block.num_heads
            shape = (ops.shape(z)[0], block.num_heads, capacity, size)
            for name in (f"keys_{i}", f"values_{i}"):
                state[name] = ops.zeros(shape, dtype=block.compute_dtype)
        return state

    def step(self, token_ids, state, jit):
        """Returns hidden states [B, D] for ids [B], and the new state."""
        capacity = ops.shape(state["keys_0"])[2]
        # A row that its caller has no more use for may run on in a full cache.
        position = ops.minimum(state["position"], capacity - 1)
        x = self._embed(token_ids, position, self.latent_embedding(state["z"]))
        bias = masks.as_bias(masks.cached(position, capacity))
        biases = [bias] * len(self.blocks)
        x, caches = step_blocks(self.blocks, x, state, position, biases, jit)
        return self.final_norm(x), {
            "z": state["z"],
            "position": position + 1,
            **caches,
        }

    def _embed(self, token_ids, positions, latent):
        x = self.token_embedding(token_ids) + self.position_embedding(positions)
        return x + latent
