"""A learnt prompt in an export: in `chat` as in memory, elsewhere the base's."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_llm import export, generation, models
from keras_llm.generation import parameters as parameters_lib
from tests.chat_tokenizer import chat_tokenizer
from tests.test_docs import ROOT, run

V, P = 261, 5
CONFIG = models.GPT2Config(
    # Too few for the longest conversation of the proof.
    vocab_size=V,
    max_positions=64,
    width=16,
    num_layers=2,
    num_heads=2,
)
TALKS = [
    [("user", "hi")],
    [("system", "s"), ("user", "一<|close|>")],
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Returns the folder of a base and that of a prompt."""
    root = tmp_path_factory.mktemp("prompt")
    keras.utils.set_random_seed(2)
    model = models.build(CONFIG)
    for weight in model.weights:
        if len(weight.shape) == 2:
            weight.assign(weight * 8)
    models.save(model, root / "base", chat_tokenizer())
    models.add_adapter(model, models.PromptConfig(tokens=P), 0)
    (vectors,) = models.adapter_weights(model)
    vectors.assign(np.random.default_rng(0).normal(0, 1, vectors.shape))
    models.save_adapter(model, root / "prompt", root / "base")
    return root / "base", root / "prompt"


@pytest.fixture(scope="module")
def generators(folders):
    return [
        generation.Generator(models.load(folder), models.load_tokenizer(folder))
        for folder in folders
    ]


@pytest.fixture(scope="module")
def exported(folders, tmp_path_factory):
    out = tmp_path_factory.mktemp("served") / "1"
    return export.from_model_folder(folders[1], out)


def knobs(rows):
    values = {**parameters_lib.DEFAULTS, "max_new_tokens": 9}
    return {
        "stop": tf.constant([[""]] * rows),
        **{
            name: tf.constant([value] * rows, parameters_lib.DTYPES[name])
            for name, value in values.items()
        },
    }


def served_chat(folder):
    said = [[*talk, *[("", "")] * (4 - len(talk))] for talk in TALKS]
    found = tf.saved_model.load(folder).signatures["chat"](
        roles=tf.constant([[m[0] for m in row] for row in said]),
        contents=tf.constant([[m[1] for m in row] for row in said]),
        **knobs(2),
    )
    return {name: value.numpy() for name, value in found.items()}


def talk_with(generator):
    talks = [[{"role": r, "content": c} for r, c in talk] for talk in TALKS]
    return generator.chat(talks, max_new_tokens=9)


def test_a_reply_is_that_of_memory(generators, exported):
    found = served_chat(exported)
    bare, prompted = map(talk_with, generators)
    for i, (reply, without) in enumerate(zip(prompted, bare, strict=True)):
        count = int(found["num_tokens"][i])
        assert found["token_ids"][i, :count].tolist() == reply.token_ids
        np.testing.assert_allclose(
            found["log_probs"][i, :count], reply.log_probs, rtol=1e-4, atol=1e-4
        )
        assert found["prompt_tokens"][i] == reply.prompt_tokens
        assert reply.prompt_tokens == without.prompt_tokens + P
        assert reply.token_ids != without.token_ids


def test_a_text_is_continued_as_by_the_base(generators, exported):
    served = tf.saved_model.load(exported).signatures["generate"]
    found = served(prompt=tf.constant(["The sea"]), **knobs(1))
    expected = generators[0].generate(["The sea"], max_new_tokens=9)[0]
    assert found["token_ids"][0].numpy().tolist() == expected.token_ids


def test_its_ids_are_none_that_a_client_may_send(exported):
    served = tf.saved_model.load(exported).signatures["prefill"]
    with pytest.raises(tf.errors.InvalidArgumentError, match=f"from 0 to {V - 1}"):
        served(
            token_ids=tf.constant([[V]]),
            lengths=tf.constant([1]),
            capacity=tf.constant([4]),
        )


def test_the_card_tells(exported):
    card = (exported / "README.md").read_text()
    assert f"A prompt of {P} learnt vectors stands before each conversation" in card


def test_fewer_bits_leave_it_as_it_is(folders):
    """An export of few bits is another test's; here the table is looked at."""
    model = models.load(folders[1])
    ids = np.array([[V, V + P - 1, 5]])
    before = np.asarray(model.get_layer("token_embedding")(ids))
    models.quantize(model)
    after = np.asarray(model.get_layer("token_embedding")(ids))
    np.testing.assert_array_equal(after[0, :2], before[0, :2])
    assert (after[0, 2] != before[0, 2]).any()
    tokenizer = models.load_tokenizer(folders[1])
    assert talk_with(generation.Generator(model, tokenizer))[0].token_ids


def test_rows_do_not_choose_it(folders, tmp_path):
    base, own = folders
    with pytest.raises(ValueError, match="Export it alone"):
        export.from_model_folder(base, tmp_path / "1", adapters={"a": own})
    assert not (tmp_path / "1").exists()


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("generate --prompt=a", "Talk with the model"),
        ("evaluate --text=LICENSE", "plain text"),
    ],
)
def test_commands_for_plain_text_refuse_it(command, message, folders):
    verb, flag = command.split()
    with pytest.raises(AssertionError, match=message):
        run(["python", f"scripts/{verb}.py", f"--model={folders[1]}", flag], ROOT)
