"""Writes T5's reference answers in `testdata/golden/`: Transformers on torch.

Small models with random weights, unlike sizes, a head size that is not width over
heads. Versions 1.1 (gated GELU, output of its own) and 1.0 (ReLU, tied output) get
`NAME.safetensors`, the weights under this package's names, and `NAME.npz`, what the
reference computes with them on ragged, right-padded sources and targets. What
`keras_llm.convert` makes of the checkpoint in `NAME/` must be the same weights. The
tests need neither library.

Example: python tests/golden/make_t5_golden.py   (torch 2.13, transformers 5.24)
"""

import pathlib
import shutil

import numpy as np
import safetensors.numpy
import torch
import transformers
from make_golden import real_states

OUT = pathlib.Path(__file__).parents[2] / "testdata" / "golden"
VOCAB, START, END, NEW, BEAMS = 37, 0, 1, 13, 3
SOURCE_LENGTHS, TARGET_LENGTHS = (17, 1, 11), (7, 13, 3)
ENCODER_LAYERS, DECODER_LAYERS = 2, 3


def t5(gated):
    """Returns a T5, of version 1.1 with `gated`, and its weights renamed."""
    model = transformers.T5ForConditionalGeneration(
        transformers.T5Config(
            vocab_size=VOCAB,
            d_model=20,
            d_kv=6,
            d_ff=31,
            num_layers=ENCODER_LAYERS,
            num_decoder_layers=DECODER_LAYERS,
            num_heads=5,
            relative_attention_num_buckets=10,
            relative_attention_max_distance=13,
            dropout_rate=0.0,
            layer_norm_epsilon=1e-5,
            feed_forward_proj="gated-gelu" if gated else "relu",
            tie_word_embeddings=not gated,
            pad_token_id=START,
            eos_token_id=END,
            decoder_start_token_id=START,
            # Its cache counts the encoder's layers where the two differ.
            use_cache=False,
        )
    )
    if gated:
        model.lm_head.weight = torch.nn.Parameter(torch.empty(VOCAB, 20))
    randomise(model)
    state = {name: value.numpy() for name, value in model.state_dict().items()}
    weights = {
        "token_embedding/embeddings": state["shared.weight"],
        **stack(state, "encoder", "encoder_", ENCODER_LAYERS, gated),
        **stack(state, "decoder", "", DECODER_LAYERS, gated),
    }
    if gated:
        weights["head/kernel"] = state["lm_head.weight"].T
    return model, weights


def stack(state, theirs, ours, layers, gated):
    """Returns the renamed weights of the encoder or of the decoder."""
    first = f"{theirs}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    weights = {
        f"{ours}relative_bias/embeddings": state[first],
        f"{ours}final_norm/scale": state[f"{theirs}.final_layer_norm.weight"],
    }
    for i in range(layers):
        block, inner = f"{ours}block_{i}", f"{theirs}.block.{i}.layer"

        def side_by_side(*parts, prefix=inner):
            kernels = [state[f"{prefix}.{part}.weight"].T for part in parts]
            return np.concatenate(kernels, axis=1)

        own = "0.SelfAttention."
        last = 1 if theirs == "encoder" else 2
        dense = f"{last}.DenseReluDense."
        gates = ("wi_0", "wi_1") if gated else ("wi",)
        weights |= {
            f"{block}/attention_norm/scale": state[f"{inner}.0.layer_norm.weight"],
            f"{block}/attention/query_key_value/kernel": side_by_side(
                own + "q", own + "k", own + "v"
            ),
            f"{block}/attention/output/kernel": side_by_side(own + "o"),
            f"{block}/feed_forward_norm/scale": state[
                f"{inner}.{last}.layer_norm.weight"
            ],
            f"{block}/feed_forward/inner/kernel": side_by_side(
                *(dense + gate for gate in gates)
            ),
            f"{block}/feed_forward/output/kernel": side_by_side(dense + "wo"),
        }
        if theirs == "decoder":
            cross, to = "1.EncDecAttention.", f"{block}/cross_attention"
            weights |= {
                f"{to}_norm/scale": state[f"{inner}.1.layer_norm.weight"],
                f"{to}/query/kernel": side_by_side(cross + "q"),
                f"{to}/key_value/kernel": side_by_side(cross + "k", cross + "v"),
                f"{to}/output/kernel": side_by_side(cross + "o"),
            }
    return weights


def randomise(model):
    """Draws every parameter anew, large enough for attention to matter."""
    generator = torch.Generator().manual_seed(19)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(0.0, 0.3, generator=generator)
            if parameter.ndim == 1 and name.endswith("weight"):
                parameter.add_(1.0)
        # A tied output is scaled by width**-0.5: logits must still differ.
        model.decoder.final_layer_norm.weight.mul_(3.0)
    model.eval()


def ragged(rng, lengths):
    """Returns ids [B, T] without START and END, and which of them are real."""
    real = np.arange(max(lengths))[None] < np.array(lengths)[:, None]
    return rng.integers(2, VOCAB, real.shape), real


def answers(model):
    """Returns what the reference computes: states, loss, gradient norm, texts."""
    rng = np.random.default_rng(29)
    source, source_real = ragged(rng, SOURCE_LENGTHS)
    target, target_real = ragged(rng, TARGET_LENGTHS)
    read = np.concatenate([np.full((len(target), 1), START), target[:, :-1]], axis=1)
    inputs = {
        "input_ids": torch.tensor(source),
        "attention_mask": torch.tensor(source_real.astype("int64")),
    }
    output = model(
        **inputs,
        decoder_input_ids=torch.tensor(read),
        labels=torch.tensor(np.where(target_real, target, -100)),
        output_hidden_states=True,
    )
    output.loss.backward()
    squares = sum((p.grad.double() ** 2).sum() for p in model.parameters())
    memory = output.encoder_last_hidden_state.detach().numpy()
    beams = search(model, inputs)
    return {
        "source_ids": source.astype("int32"),
        "source_lengths": np.array(SOURCE_LENGTHS, "int32"),
        "token_ids": read.astype("int32"),
        "targets": target.astype("int32"),
        "target_lengths": np.array(TARGET_LENGTHS, "int32"),
        "memory": np.where(source_real[:, :, None], memory, 0),
        # Of the embeddings and each block, of the last one behind the final norm.
        "source_hidden": real_states(output.encoder_hidden_states, source_real),
        "hidden": real_states(output.decoder_hidden_states, target_real),
        "logits": np.where(target_real[:, :, None], output.logits.detach().numpy(), 0),
        "loss": output.loss.item(),
        "gradient_norm": squares.sqrt().item(),
        "greedy": greedy(model, inputs),
        "beam_ids": beams[0],
        "beam_scores": beams[1],
    }


@torch.no_grad()
def greedy(model, inputs):
    """Returns the NEW likeliest next tokens, each from a full forward pass."""
    rows = torch.full((len(SOURCE_LENGTHS), 1), START)
    for _ in range(NEW):
        logits = model(**inputs, decoder_input_ids=rows).logits
        rows = torch.cat([rows, logits[:, -1:].argmax(-1)], dim=1)
    return rows[:, 1:].numpy().astype("int32")


@torch.no_grad()
def search(model, inputs):
    """Returns all beams [B, W, N], -1 after each one's end, and log p [B, W]."""
    result = model.generate(
        **inputs,
        num_beams=BEAMS,
        num_return_sequences=BEAMS,
        max_new_tokens=NEW,
        do_sample=False,
        length_penalty=0.0,
        early_stopping=False,
        use_cache=False,
        output_scores=True,
        return_dict_in_generate=True,
    )
    ids = result.sequences[:, 1:].numpy()
    after_end = np.cumsum(ids == END, axis=1) - (ids == END) > 0
    shape = (len(SOURCE_LENGTHS), BEAMS, -1)
    ids = np.where(after_end, -1, ids).astype("int32").reshape(shape)
    return ids, result.sequences_scores.numpy().reshape(shape[:2])


def main():
    """Writes every file."""
    OUT.mkdir(parents=True, exist_ok=True)
    for name, gated in (("t5", True), ("t5_tied", False)):
        model, weights = t5(gated)
        shutil.rmtree(OUT / name, ignore_errors=True)
        model.save_pretrained(OUT / name)
        (OUT / name / "generation_config.json").unlink()
        weights = {key: np.ascontiguousarray(value) for key, value in weights.items()}
        safetensors.numpy.save_file(weights, OUT / f"{name}.safetensors")
        result = answers(model)
        np.savez_compressed(OUT / f"{name}.npz", **result)
        print(name, "loss", result["loss"], "gradient norm", result["gradient_norm"])
        print(result["greedy"], result["beam_ids"], result["beam_scores"])


if __name__ == "__main__":
    main()
