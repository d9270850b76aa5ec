"""Writes the reference answers for BERT and ELECTRA: Transformers on torch.

As `make_golden.py` does for language models, with the weights under this package's
names besides, renamed by hand: what `keras_llm.convert` makes of the checkpoints in
`bert/`, `bert_classify/` and `electra_pair/` must be the same. One BERT trunk is under
every head; the heads' own weights are in `bert.npz`, as "HEAD:NAME". ELECTRA's
generator and discriminator share their embeddings.

Example: python tests/golden/make_bert_golden.py   (torch 2.13, transformers 5.24)
"""

import shutil

import numpy as np
import torch
import transformers
from make_golden import LENGTHS, OUT, SPECIAL, VOCAB, randomise, write

ROWS, LONGEST = len(LENGTHS), max(LENGTHS)
LAYERS, MASK = 3, 1
# By row; -1 fills up. The last row asks for its first token and its last.
POSITIONS = np.array([[3, 10, 5, 8], [1, 2, -1, -1], [0, 6, -1, -1]], "int32")
SIZES = {
    **SPECIAL,
    "vocab_size": VOCAB,
    "max_position_embeddings": 29,
    "type_vocab_size": 3,
    "num_hidden_layers": LAYERS,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "attn_implementation": "eager",
}
BERT = {**SIZES, "hidden_size": 20, "num_attention_heads": 5, "intermediate_size": 31}
GENERATOR = {
    **SIZES,
    "embedding_size": 11,
    "hidden_size": 14,
    "num_attention_heads": 2,
    "intermediate_size": 18,
}
DISCRIMINATOR = {
    **GENERATOR,
    "hidden_size": 28,
    "num_attention_heads": 4,
    "intermediate_size": 36,
}

EMBEDDINGS = {
    "word_embeddings.weight": "token_embedding/embeddings",
    "position_embeddings.weight": "position_embedding/embeddings",
    "token_type_embeddings.weight": "segment_embedding/embeddings",
    "LayerNorm.weight": "embedding_norm/scale",
    "LayerNorm.bias": "embedding_norm/bias",
}
BLOCK = {
    "attention.output.dense": "attention/output",
    "attention.output.LayerNorm": "attention_norm",
    "intermediate.dense": "feed_forward/inner",
    "output.dense": "feed_forward/output",
    "output.LayerNorm": "feed_forward_norm",
}


def arrays(model):
    """Returns a model's parameters as arrays."""
    return {name: value.numpy() for name, value in model.state_dict().items()}


def pair(state, theirs, ours):
    """Returns the two weights of one projection or norm, renamed."""
    weight, bias = state[f"{theirs}.weight"], state[f"{theirs}.bias"]
    if weight.ndim == 1:
        return {f"{ours}/scale": weight, f"{ours}/bias": bias}
    return {f"{ours}/kernel": weight.T, f"{ours}/bias": bias}


def embeddings(state, theirs):
    """Returns the three tables and their norm, renamed."""
    return {
        name: state[f"{theirs}.embeddings.{key}"] for key, name in EMBEDDINGS.items()
    }


def blocks(state, theirs, prefix=""):
    """Returns the encoder's weights, renamed."""
    weights = {}
    for i in range(LAYERS):
        layer, block = f"{theirs}.encoder.layer.{i}", f"{prefix}block_{i}"
        for key, name in BLOCK.items():
            weights |= pair(state, f"{layer}.{key}", f"{block}/{name}")
        parts = [f"{layer}.attention.self.{part}" for part in ("query", "key", "value")]
        fused = f"{block}/attention/query_key_value"
        weights[f"{fused}/kernel"] = np.concatenate(
            [state[f"{part}.weight"].T for part in parts], axis=1
        )
        weights[f"{fused}/bias"] = np.concatenate(
            [state[f"{part}.bias"] for part in parts]
        )
    return weights


def batch():
    """Returns the rows: ids before and after masking, segments, lengths."""
    rng = np.random.default_rng(29)
    ids = rng.integers(2, VOCAB, (ROWS, LONGEST)).astype("int32")
    segments = rng.integers(0, 3, (ROWS, LONGEST)).astype("int32")
    masked = ids.copy()
    for row, places in enumerate(POSITIONS):
        masked[row, places[places >= 0]] = MASK
    return {
        "token_ids": ids,
        "masked_ids": masked,
        "masked_positions": POSITIONS,
        "segment_ids": segments,
        "lengths": np.array(LENGTHS, "int32"),
    }


def inputs(rows, ids):
    """Returns the reference's inputs for the rows, with `ids` in them."""
    real = np.arange(LONGEST)[None] < rows["lengths"][:, None]
    return {
        "input_ids": torch.tensor(ids).long(),
        "token_type_ids": torch.tensor(rows["segment_ids"]).long(),
        "attention_mask": torch.tensor(real).long(),
    }


def masked_labels(rows):
    """Returns the original ids at masked positions, -100 elsewhere."""
    wanted = rows["masked_ids"] == MASK
    return torch.tensor(np.where(wanted, rows["token_ids"], -100)).long()


def gradient_norm(*models):
    """Returns the norm over every parameter; a shared one counts once."""
    parameters = {id(p): p for model in models for p in model.parameters()}
    squares = sum((p.grad.double() ** 2).sum() for p in parameters.values())
    return squares.sqrt().item()


def bert():
    """Returns BERT's weights under this package's names, and its answers."""
    rows = batch()
    masked_lm = transformers.BertForMaskedLM(transformers.BertConfig(**BERT))
    randomise(masked_lm)
    output = masked_lm(
        **inputs(rows, rows["masked_ids"]),
        labels=masked_labels(rows),
        output_hidden_states=True,
    )
    output.loss.backward()
    state = arrays(masked_lm)
    save(masked_lm, "bert")
    predictions = "cls.predictions"
    weights = {
        **embeddings(state, "bert"),
        **blocks(state, "bert"),
        **pair(state, f"{predictions}.transform.dense", "head_transform"),
        **pair(state, f"{predictions}.transform.LayerNorm", "head_norm"),
        "token_embedding/output_bias": state[f"{predictions}.bias"],
    }
    result = {
        **rows,
        "masked_lm": output.logits.detach().numpy(),
        "hidden": torch.stack(output.hidden_states).detach().numpy(),
        "loss": output.loss.item(),
        "gradient_norm": gradient_norm(masked_lm),
    }
    for head, make, parts in (
        (
            "classify",
            transformers.BertForSequenceClassification,
            {"bert.pooler.dense": "pooler", "classifier": "head"},
        ),
        ("tag", transformers.BertForTokenClassification, {"classifier": "head"}),
        ("answer", transformers.BertForQuestionAnswering, {"qa_outputs": "head"}),
    ):
        labels = 2 if head == "answer" else 7
        model = make(transformers.BertConfig(**BERT, num_labels=labels))
        randomise(model)
        model.bert.load_state_dict(masked_lm.bert.state_dict(), strict=False)
        if head == "classify":
            save(model, "bert_classify")
        with torch.no_grad():
            output = model(**inputs(rows, rows["token_ids"]))
        logits = output.logits if head != "answer" else answer_logits(output)
        result[head] = logits.numpy()
        for theirs, ours in parts.items():
            for name, value in pair(arrays(model), theirs, ours).items():
                result[f"{head}:{name}"] = value
    return weights, result


def save(model, name):
    """Writes a checkpoint folder as Transformers does."""
    shutil.rmtree(OUT / name, ignore_errors=True)
    model.save_pretrained(OUT / name)


def answer_logits(output):
    """Returns start and end logits side by side, [B, T, 2]."""
    return torch.stack([output.start_logits, output.end_logits], dim=-1)


def electra():
    """Returns ELECTRA's weights under this package's names, and its answers."""
    rows = batch()
    generator = transformers.ElectraForMaskedLM(transformers.ElectraConfig(**GENERATOR))
    discriminator = transformers.ElectraForPreTraining(
        transformers.ElectraConfig(**DISCRIMINATOR)
    )
    randomise(generator)
    randomise(discriminator)
    discriminator.electra.embeddings = generator.electra.embeddings
    masked = generator(**inputs(rows, rows["masked_ids"]), labels=masked_labels(rows))
    likeliest = masked.logits.argmax(-1).int().numpy()
    corrupted = np.where(rows["masked_ids"] == MASK, likeliest, rows["token_ids"])
    replaced = torch.tensor(corrupted != rows["token_ids"]).long()
    told = discriminator(
        **inputs(rows, corrupted), labels=replaced, output_hidden_states=True
    )
    loss = masked.loss + 50 * told.loss
    loss.backward()
    result = {
        **rows,
        "generator_logits": masked.logits.detach().numpy(),
        "corrupted_ids": corrupted.astype("int32"),
        "discriminator_logits": told.logits.detach().numpy(),
        "hidden": torch.stack(told.hidden_states).detach().numpy(),
        "generator_loss": masked.loss.item(),
        "discriminator_loss": told.loss.item(),
        "loss": loss.item(),
        "gradient_norm": gradient_norm(generator, discriminator),
    }
    result |= electra_classify(rows)
    save(generator, "electra_pair/generator")
    save(discriminator, "electra_pair/discriminator")
    result |= electra_token_heads(rows, discriminator)
    return electra_weights(arrays(generator), arrays(discriminator)), result


def electra_classify(rows):
    """Saves a classifier on a discriminator's trunk; returns its answers."""
    model = transformers.ElectraForSequenceClassification(
        transformers.ElectraConfig(**DISCRIMINATOR, num_labels=7)
    )
    randomise(model)
    save(model, "electra_classify")
    with torch.no_grad():
        logits = model(**inputs(rows, rows["token_ids"])).logits
    return {"classify": logits.numpy()}


def electra_token_heads(rows, discriminator):
    """Returns the answers of two heads on a discriminator's trunk, and their weights.

    The weights stand under the names that a checkpoint has, after "HEAD:".
    """
    result = {}
    for head, make, labels in (
        ("tag", transformers.ElectraForTokenClassification, 7),
        ("answer", transformers.ElectraForQuestionAnswering, 2),
    ):
        model = make(transformers.ElectraConfig(**DISCRIMINATOR, num_labels=labels))
        randomise(model)
        model.electra.load_state_dict(discriminator.electra.state_dict())
        with torch.no_grad():
            output = model(**inputs(rows, rows["token_ids"]))
        logits = output.logits if head == "tag" else answer_logits(output)
        result[head] = logits.numpy()
        for name, value in arrays(model).items():
            if not name.startswith("electra."):
                result[f"{head}:{name}"] = value
    return result


def electra_weights(generator, discriminator):
    """Returns both models' parameters under this package's names."""
    projection = "electra.embeddings_project"
    parts = {
        "discriminator_predictions.dense": "discriminator_transform",
        "discriminator_predictions.dense_prediction": "discriminator_head",
        projection: "embedding_projection",
    }
    generator_parts = {
        "generator_predictions.dense": "generator_head_transform",
        "generator_predictions.LayerNorm": "generator_head_norm",
        projection: "generator_embedding_projection",
    }
    weights = {
        **embeddings(generator, "electra"),
        **blocks(discriminator, "electra"),
        **blocks(generator, "electra", "generator_"),
        "token_embedding/output_bias": generator["generator_lm_head.bias"],
    }
    for state, names in ((discriminator, parts), (generator, generator_parts)):
        for theirs, ours in names.items():
            weights |= pair(state, theirs, ours)
    return weights


def main():
    """Writes every file."""
    write("bert", *bert())
    write("electra", *electra())


if __name__ == "__main__":
    main()
