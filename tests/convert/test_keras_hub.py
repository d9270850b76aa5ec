"""Backbones of KerasHub become models of ours with the same logits."""

import pathlib

import keras
import keras_hub
import numpy as np
import pytest
import tensorflow as tf

from keras_llm import convert, export, models
from keras_llm.generation import parameters
from keras_llm.tokenizers import ByteTokenizer

TESTDATA = pathlib.Path(__file__).parents[2] / "testdata"
hub = keras_hub.models
SIZES = {"vocabulary_size": 37, "num_layers": 3, "hidden_dim": 24}
GROUPED = {
    **SIZES,
    "num_query_heads": 6,
    "num_key_value_heads": 2,
    "intermediate_dim": 31,
    "layer_norm_epsilon": 1e-5,
}
GEMMA = {**GROUPED, "head_dim": 14, "intermediate_dim": 62}
SHORT = {**SIZES, "num_heads": 6, "intermediate_dim": 31, "max_sequence_length": 29}
T5 = {**SIZES, "num_heads": 6, "intermediate_dim": 31, "key_value_dim": 5}
LLAMA_3 = {
    "rope_max_wavelength": 500.0,
    "rope_frequency_adjustment_factor": 4.0,
    "rope_low_freq_factor": 1.0,
    "rope_high_freq_factor": 3.0,
    "rope_pretraining_sequence_length": 64,
}
GEMMA_2 = {
    "use_post_ffw_norm": True,
    "use_post_attention_norm": True,
    "attention_logit_soft_cap": 2.5,
    "final_logit_soft_cap": 3.5,
    "use_sliding_window_attention": True,
    "sliding_window_size": 5,
}
DECODERS = {
    "gpt2": lambda: hub.GPT2Backbone(**SHORT),
    "llama": lambda: hub.LlamaBackbone(**GROUPED),
    "llama_tied": lambda: hub.LlamaBackbone(**GROUPED, tie_word_embeddings=True),
    "llama3": lambda: hub.Llama3Backbone(**GROUPED, **LLAMA_3),
    "mistral": lambda: hub.MistralBackbone(**GROUPED, sliding_window=4, head_dim=8),
    "qwen": lambda: hub.QwenBackbone(**GROUPED),
    "gemma": lambda: hub.GemmaBackbone(**GEMMA),
    "gemma2": lambda: hub.GemmaBackbone(**GEMMA, **GEMMA_2),
    "gemma2_by_width": lambda: hub.GemmaBackbone(
        **GEMMA, **{**GEMMA_2, "use_sliding_window_attention": False}
    ),
}
T5S = {
    "v1.1": {"activation": "gelu_tanh", "tie_embedding_weights": False},
    "exact": {"activation": "gelu", "tie_embedding_weights": False},
    "v1.0": {"activation": "relu", "use_gated_activation": False},
}
LENGTHS = np.array([11, 4, 1])


def _random(backbone):
    """Gives every weight a value of its own, so that no bias is 0 and no scale 1."""
    rng = np.random.default_rng(0)
    for weight in backbone.weights:
        weight.assign(rng.normal(0, 0.3, weight.shape))
    return backbone


def _rows():
    """Returns right-padded ids [3, 11] and which are real."""
    ids = np.random.default_rng(1).integers(1, 37, (3, 11))
    real = np.arange(11) < LENGTHS[:, None]
    return ids * real, real


@pytest.fixture(scope="module", params=DECODERS)
def decoder(request):
    return _random(DECODERS[request.param]())


def test_decoders_have_the_same_logits(decoder):
    ids, real = _rows()
    hidden = decoder({"token_ids": ids, "padding_mask": real.astype("int32")})
    wanted = np.asarray(decoder.token_embedding(hidden, reverse=True))
    given = np.asarray(convert.from_keras_hub(decoder)(ids))
    assert np.abs(wanted[real]).max() > 0.5
    np.testing.assert_allclose(given[real], wanted[real], atol=1e-4)


def test_a_bert_has_the_same_vectors():
    bert = _random(hub.BertBackbone(**{**SHORT, "num_segments": 3}))
    ids, real = _rows()
    segments = np.where(real, np.arange(11) % 3, 0)
    theirs = bert(
        {
            "token_ids": ids,
            "segment_ids": segments,
            "padding_mask": real.astype("int32"),
        }
    )
    model = convert.from_keras_hub(bert)
    given = model({"token_ids": ids, "segment_ids": segments, "lengths": LENGTHS})
    wanted = np.asarray(theirs["sequence_output"])[:, 0]
    np.testing.assert_allclose(np.asarray(given), wanted, atol=1e-4)
    assert (model.config.head, model.config.activation) == ("embed", "gelu_tanh")


@pytest.mark.parametrize("kind", T5S)
def test_a_t5_has_the_same_logits(kind):
    choices = dict(T5S[kind])
    if choices["activation"] == "gelu_tanh":
        choices["activation"] = lambda x: keras.activations.gelu(x, approximate=True)
    backbone = _random(hub.T5Backbone(**T5, **choices))
    ids, real = _rows()
    targets = np.random.default_rng(2).integers(1, 37, (3, 7))
    lm = hub.T5Seq2SeqLM(backbone=backbone, preprocessor=None)
    wanted = lm(
        {
            "encoder_token_ids": ids,
            "encoder_padding_mask": real.astype("int32"),
            "decoder_token_ids": targets,
            "decoder_padding_mask": np.ones((3, 7), "int32"),
        }
    )
    model = convert.from_keras_hub(backbone, max_positions=13)
    given = model(
        {
            "source_ids": ids,
            "source_lengths": LENGTHS,
            "token_ids": targets,
        }
    )
    np.testing.assert_allclose(np.asarray(given), np.asarray(wanted), atol=1e-4)
    assert model.config.max_positions == 13


def test_what_is_generated_is_what_keras_hub_generates(tmp_path):
    backbone = _random(hub.GPT2Backbone(**{**SHORT, "vocabulary_size": 257}))
    tokens, places = backbone.weights[:2]
    tokens.assign(tokens.numpy() * (np.arange(257) < 256)[:, None])  # It never ends.
    places.assign(5 * places.numpy())  # Nor says one thing all the time.
    theirs = hub.GPT2CausalLM(backbone=backbone, preprocessor=None)
    theirs.compile(sampler="greedy")
    tokenizer = ByteTokenizer()
    prompt = tokenizer.encode("a whale")
    padded = np.zeros((1, 29), "int32")
    padded[0, : len(prompt)] = prompt
    real = np.arange(29) < len(prompt)
    wanted = theirs.generate(
        {"token_ids": padded, "padding_mask": real[None].astype("int32")},
        stop_token_ids=None,
    )["token_ids"][0]
    export.export(
        convert.from_keras_hub(backbone), tokenizer, tmp_path / "1", verify=False
    )
    generate = tf.saved_model.load(str(tmp_path / "1")).signatures["generate"]
    request = {**parameters.DEFAULTS, "max_new_tokens": 16, "temperature": 0.0}
    said = generate(
        prompt=tf.constant(["a whale"]),
        stop=tf.zeros([1, 0], tf.string),
        **{name: tf.constant([value]) for name, value in request.items()},
    )
    ids = said["token_ids"].numpy()[0, : said["num_tokens"].numpy()[0]]
    np.testing.assert_array_equal(ids, wanted[len(prompt) :][: len(ids)])
    assert len(ids) == 16
    assert len(set(ids)) > 3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: hub.OPTBackbone(**SHORT), "GPT2Backbone.*Received: OPTBackbone"),
        (
            lambda: hub.GPT2CausalLM(
                backbone=hub.GPT2Backbone(**SHORT), preprocessor=None
            ),
            "Give its `.backbone`",
        ),
        (
            lambda: hub.LlamaBackbone(**GROUPED, rope_position_scaling_factor=2.0),
            "Received: a scaling by 2.0",
        ),
        (
            lambda: hub.QwenBackbone(**GROUPED, use_sliding_window_attention=True),
            "must have no window",
        ),
        (
            lambda: hub.GemmaBackbone(**GEMMA, use_post_ffw_norm=True),
            r"or neither.*\(False, True\)",
        ),
        (
            lambda: hub.GemmaBackbone(**GEMMA, final_logit_soft_cap=3.0),
            "must have no caps.*3.0",
        ),
        (lambda: hub.T5Backbone(**T5), "gated GELU.*relu.*use_gated_activation=True"),
    ],
)
def test_what_is_not_ours_is_refused(make, message):
    with pytest.raises(convert.UnsupportedModelError, match=f"(?s){message}"):
        convert.from_keras_hub(make())


def test_a_table_of_positions_says_how_long_rows_are():
    with pytest.raises(convert.UnsupportedModelError, match="for a table of 29"):
        convert.from_keras_hub(hub.GPT2Backbone(**SHORT), max_positions=64)
    llama = convert.from_keras_hub(hub.LlamaBackbone(**GROUPED), max_positions=64)
    assert llama.config.max_positions == 64


def test_weights_beside_the_known_ones_are_refused():
    backbone = hub.GemmaBackbone(**GEMMA)
    backbone.enable_lora(rank=2)
    with pytest.raises(convert.UnsupportedModelError, match="Left over: .*lora_kernel"):
        convert.from_keras_hub(backbone)
    backbone = hub.LlamaBackbone(**GROUPED)
    backbone.quantize("int8")
    with pytest.raises(convert.UnsupportedModelError, match="before quantising"):
        convert.from_keras_hub(backbone)


TEXTS = ["The whale's 12 flukes,\n  and  naïve sailors!", "", "多少钱", "don't"]


def test_vocabularies_of_keras_hub():
    gpt2 = hub.GPT2Tokenizer(
        vocabulary=str(TESTDATA / "gpt2" / "encoder.json"),
        merges=str(TESTDATA / "gpt2" / "vocab.bpe"),
    )
    bert = hub.BertTokenizer(
        vocabulary=str(TESTDATA / "bert" / "vocab.txt"), lowercase=True
    )
    pieces = hub.LlamaTokenizer(
        proto=str(TESTDATA / "sentencepiece" / "botchan_en_bpe_1000.model")
    )
    for theirs in (gpt2, bert, pieces):
        ours = convert.tokenizer_from_keras_hub(theirs)
        assert ours.vocab_size == theirs.vocabulary_size()
        for text in TEXTS:
            assert list(ours.encode(text)) == list(np.asarray(theirs(text))), text
    with pytest.raises(convert.UnsupportedModelError, match="Received: ByteTokenizer"):
        convert.tokenizer_from_keras_hub(keras_hub.tokenizers.ByteTokenizer())


def test_there_and_back_are_the_same_bits_and_a_preset(decoder, tmp_path):
    """What is read of a backbone is written to one, whose preset KerasHub reads."""
    ours = convert.from_keras_hub(decoder)
    backbone = convert.to_keras_hub(ours)
    written = {weight.path: weight for weight in backbone.weights}
    for weight in decoder.weights:
        np.testing.assert_array_equal(written[weight.path], weight)
    backbone.save_to_preset(tmp_path / "preset")
    loaded = keras_hub.models.Backbone.from_preset(str(tmp_path / "preset"))
    assert type(loaded) is type(backbone)
    ids, real = _rows()
    hidden = loaded({"token_ids": ids, "padding_mask": real.astype("int32")})
    given = np.asarray(loaded.token_embedding(hidden, reverse=True))
    np.testing.assert_allclose(given[real], np.asarray(ours(ids))[real], atol=1e-4)
    again = convert.from_keras_hub(loaded, _positions(decoder, ours))
    wanted = ours.config
    if getattr(wanted, "tied", False) and "llama" in type(loaded).__name__.lower():
        wanted = wanted.replace(tied=False)  # Its preset does not say it.
    assert again.config == wanted


def _positions(backbone, ours):
    has_table = hasattr(backbone, "max_sequence_length")
    return None if has_table else ours.config.max_positions


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (models.BertConfig(head="embed"), "go the kinds gpt2, llama, .* kind 'bert'"),
        (models.LlamaConfig(query_key_norm=True, num_heads=2), "the kind 'qwen3'"),
        (models.LlamaConfig(num_heads=2, head_size=6), "head_size=6, where it has 4"),
        (models.GPT2Config(num_heads=2, epsilon=1e-3), "epsilon=0.001, where it has"),
        (models.GemmaConfig(score_divisor=7, num_heads=2), "score_divisor=7"),
    ],
)
def test_what_a_backbone_cannot_say_is_refused(config, message):
    sizes = {"vocab_size": 11, "width": 8, "num_layers": 1, "num_heads": 2}
    if "gemma" in config.architecture:
        sizes |= {"key_value_heads": 1, "head_size": 4, "feed_forward_width": 6}
        sizes["post_norm"] = True
    model = models.build(config.replace(**sizes))
    with pytest.raises(convert.UnsupportedModelError, match=message):
        convert.to_keras_hub(model)


def test_what_is_left_to_be_derived_is_filled_in():
    sizes = {"vocab_size": 11, "width": 8, "num_layers": 2, "num_heads": 2}
    gemma = {"key_value_heads": 1, "head_size": 4, "feed_forward_width": 6}
    for config in (
        models.GPT2Config(**sizes),
        models.LlamaConfig(**sizes, separator_id=3),
        models.GemmaConfig(**sizes, **gemma),
        models.GemmaConfig(**sizes, **gemma, post_norm=True),
    ):
        model = models.build(config)
        backbone, ids = convert.to_keras_hub(model), np.arange(4, 9)[None]
        hidden = backbone({"token_ids": ids, "padding_mask": np.ones_like(ids)})
        wanted = np.asarray(backbone.token_embedding(hidden, reverse=True))
        np.testing.assert_allclose(np.asarray(model(ids)), wanted, atol=1e-4)


def test_an_adapter_is_merged_first():
    sizes = {"vocab_size": 11, "width": 8, "num_layers": 1, "num_heads": 2}
    model = models.build(models.GPT2Config(**sizes))
    models.add_adapter(model, models.AdapterConfig(rank=2))
    with pytest.raises(convert.UnsupportedModelError, match="models.merged"):
        convert.to_keras_hub(model)
    convert.to_keras_hub(models.merged(model))
