"""Exports in half precision, and compiled ones: proven as they compute."""

import importlib
import json

import keras
import pytest
import tensorflow as tf

from keras_llm import export, models, tokenizers
from keras_llm.core import allowed_ops

# The package's `verify` is the function.
verify_lib = importlib.import_module("keras_llm.export.verify")


def tiny(architecture, dtype="float32"):
    """Returns a model whose texts vary."""
    sizes = {
        "gpt2": models.GPT2Config(
            vocab_size=257, width=32, num_layers=1, num_heads=4, max_positions=64
        ),
        "gemma": models.GemmaConfig(
            vocab_size=257,
            width=32,
            num_layers=2,
            num_heads=4,
            key_value_heads=2,
            head_size=6,
            feed_forward_width=40,
            max_positions=64,
            window=5,
            full_every=2,
            post_norm=True,
            score_soft_cap=2.5,
            logit_soft_cap=3.5,
        ),  # fmt: skip
        "lstm_lm": models.LSTMLMConfig(
            vocab_size=257, embedding_width=12, units=20, num_layers=1
        ),
    }
    keras.utils.set_random_seed(5)
    model = models.build(sizes[architecture], dtype)
    for weight in model.trainable_weights:
        noise = keras.random.normal(weight.shape, seed=3, dtype=dtype)
        weight.assign(weight + 0.2 * noise)
    return model


def test_a_compiled_export_is_refused_as_stock_and_proven_as_compiled(tmp_path):
    tokenizer = tokenizers.ByteTokenizer()
    out = export.export(tiny("gpt2"), tokenizer, tmp_path / "1", jit=True)
    assert json.loads((out / "manifest.json").read_text())["jit"] is True
    assert "--xla_cpu_compilation_enabled=true" in (out / "README.md").read_text()
    with pytest.raises(allowed_ops.ForbiddenGraphError, match="jit_compile"):
        allowed_ops.check_graph(out)


@pytest.mark.parametrize(
    ("architecture", "dtype", "bound"),
    [
        ("gpt2", "bfloat16", "0.016"),
        ("gemma", "bfloat16", "0.016"),
        ("lstm_lm", "float16", "0.002"),
    ],
)
def test_half_precision_is_proven_and_served_as_float32(
    tmp_path, architecture, dtype, bound
):
    model = tiny(architecture, dtype)
    out = export.export(model, tokenizers.ByteTokenizer(), tmp_path / "1")
    assert json.loads((out / "manifest.json").read_text())["verified_answers"] == 16
    card = (out / "README.md").read_text()
    assert f"| dtype | {dtype} |" in card
    assert f"identical text, figures within {bound}" in card
    loaded = tf.saved_model.load(out)
    state = loaded.signatures["prefill"](
        token_ids=tf.constant([[1, 2]]),
        lengths=tf.constant([2]),
        capacity=tf.constant([4]),
    )
    assert {tensor.dtype for tensor in state.values()} <= {tf.float32, tf.int32}
    logits = state.pop("logits")
    loaded.signatures["decode_step"](token_ids=tf.argmax(logits, -1, tf.int32), **state)


def test_a_model_that_overflows_is_refused_with_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr(verify_lib, "check_graph", lambda *_, **__: None)
    model = tiny("gpt2", "float16")
    model.get_layer("final_norm").scale.assign([60_000.0] * 32)
    with pytest.raises(export.VerificationError, match="finite .* export in bfloat16"):
        export.verify(tmp_path, model, tokenizers.ByteTokenizer())


def test_other_dtypes_are_refused(tmp_path):
    with pytest.raises(ValueError, match="`dtype` must be one of .*'float64'"):
        export.export(tiny("gpt2", "float64"), None, tmp_path / "1")
    with pytest.raises(ValueError, match="`dtype` must be one of .*'int8'"):
        export.from_model_folder(tmp_path / "model", tmp_path / "1", dtype="int8")
