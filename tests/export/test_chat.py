"""The signature `chat`: as in memory, in any company, and refused what it must."""

import json
import pathlib

import keras
import pytest
import tensorflow as tf

from keras_llm import export, generation, models, tokenizers
from keras_llm.generation import parameters as parameters_lib
from tests.chat_tokenizer import chat_tokenizer

CONFIG = models.LlamaConfig(
    vocab_size=259, max_positions=96, width=16, num_layers=2, num_heads=2
)
TALKS = [
    [("user", "hi")],
    [("system", "s"), ("user", "一"), ("assistant", "yes"), ("user", "<|im_end|>")],
]


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(2)
    return models.build(CONFIG)


@pytest.fixture(scope="module")
def tokenizer():
    return chat_tokenizer()


@pytest.fixture(scope="module")
def exported(model, tokenizer, tmp_path_factory) -> pathlib.Path:
    out = tmp_path_factory.mktemp("served") / "1"
    return export.export(model, tokenizer, out)


def request(talks, fill=lambda _: ("", ""), **knobs):
    most = max(map(len, talks))
    said = [[*talk, *[fill(talk)] * (most - len(talk))] for talk in talks]
    values = {**parameters_lib.DEFAULTS, "max_new_tokens": 9, **knobs}
    return {
        "roles": tf.constant([[m[0] for m in row] for row in said]),
        "contents": tf.constant([[m[1] for m in row] for row in said]),
        "stop": tf.constant([[""]] * len(talks)),
        **{
            name: tf.constant([value] * len(talks), parameters_lib.DTYPES[name])
            for name, value in values.items()
        },
    }


def test_a_reply_is_that_of_memory_in_any_company(model, tokenizer, exported):
    chat = tf.saved_model.load(exported).signatures["chat"]
    expected = generation.Generator(model, tokenizer).chat(
        [[{"role": r, "content": c} for r, c in talk] for talk in TALKS],
        max_new_tokens=9,
    )
    for fill in (lambda _: ("", ""), lambda talk: talk[0]):
        together = chat(**request(TALKS, fill))
        for i, talk in enumerate(TALKS):
            alone = chat(**request([talk]))
            for found, at in ((together, i), (alone, 0)):
                assert found["text"][at].numpy().decode() == expected[i].text
                count = int(found["num_tokens"][at])
                ids = found["token_ids"][at, :count].numpy().tolist()
                assert ids == expected[i].token_ids
                assert int(found["prompt_tokens"][at]) == expected[i].prompt_tokens


def test_a_conversation_is_the_prompt_of_its_ids(model, tokenizer):
    """By the signature for ids, which knows nothing of conversations."""
    rows = tokenizers.ChatEncoder(tokenizer).prompts(
        *(request(TALKS[1:])[name] for name in ("roles", "contents"))
    )
    subject = generation.make_prompt_model(model, tokenizer)
    knobs = parameters_lib.make(1, max_new_tokens=9)
    lengths = tf.cast(rows.row_lengths(), tf.int32)
    found = subject.generate_ids(rows.to_tensor(), lengths, knobs)
    talk = [{"role": r, "content": c} for r, c in TALKS[1]]
    reply = generation.Generator(model, tokenizer).chat([talk], max_new_tokens=9)[0]
    assert found["token_ids"][0].numpy().tolist() == reply.token_ids


def test_what_is_refused(exported):
    chat = tf.saved_model.load(exported).signatures["chat"]
    for talk, message in (
        ([("bot", "a")], "Every role must be"),
        ([("user", "a"), ("assistant", "b")], "the user last"),
        ([("user", "a" * 96)], "positions"),
        ([("user", "")], None),
    ):
        if message is None:
            chat(**request([talk]))
            continue
        with pytest.raises(tf.errors.InvalidArgumentError, match=message):
            chat(**request([talk]))


def test_what_is_no_message_is_refused(model, tokenizer):
    generator = generation.Generator(model, tokenizer)
    for wrong in ({"role": "user"}, {"role": "user", "content": 1}, "hi"):
        with pytest.raises(ValueError, match="two texts"):
            generator.chat([[wrong]])


def test_a_base_model_has_no_such_signature(model, tmp_path):
    out = export.export(model, tokenizers.ByteTokenizer(), tmp_path / "1", verify=False)
    assert "chat" not in tf.saved_model.load(out).signatures


def test_the_card_and_the_proof_know_of_it(exported):
    assert '"signature_name": "chat"' in (exported / "README.md").read_text()
    manifest = json.loads((exported / "manifest.json").read_text())
    assert manifest["verified_answers"] > 0
