"""A language model over HTTP: the same answers and the same refusals as in Python."""

import math

import keras
import numpy as np
import pytest

from keras_llm import export, models, tokenizers
from keras_llm.generation import Generator
from tests.serving.asking import DEFAULTS, ask, wire

POSITIONS = 48
ROWS = [
    {"prompt": "Hello, ", "max_new_tokens": 9, "seed": 1},
    {"prompt": "", "max_new_tokens": 5, "temperature": 1.0, "seed": 2},
    {"prompt": "文字", "max_new_tokens": 0},
    {"prompt": b"\xff\xfe a", "max_new_tokens": 12, "temperature": 0.8, "top_p": 0.9},
    {"prompt": "a longer prompt", "max_new_tokens": 17, "stop": ["e", "zz"]},
]


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(5)
    model = models.build(
        models.GPT2Config(
            vocab_size=257, width=20, num_layers=1, num_heads=5, max_positions=POSITIONS
        )
    )
    for weight in model.trainable_weights:
        weight.assign(weight + 0.2 * keras.random.normal(weight.shape, seed=3))
    return model


@pytest.fixture(scope="module")
def generator(model):
    return Generator(model, tokenizers.ByteTokenizer())


@pytest.fixture(scope="module")
def served(model, tmp_path_factory, start_server):
    base = tmp_path_factory.mktemp("language_model") / "small"
    export.export(model, tokenizers.ByteTokenizer(), base / "1", verify=False)
    with start_server(base, "--max_batch_rows=16") as server:
        yield server


def same(served, expected):
    """Compares a row of a reply with the `Generation` from Python."""
    count = served["num_tokens"]
    assert served["text"] == expected.text
    assert served["token_ids"][:count] == expected.token_ids
    assert set(served["token_ids"][count:]) <= {-1}
    assert served["finish_reason"] == expected.finish_reason
    assert served["prompt_tokens"] == expected.prompt_tokens
    np.testing.assert_allclose(
        served["log_probs"][:count], expected.log_probs, rtol=1e-4, atol=1e-4
    )


def in_python(generator, row):
    knobs = {**DEFAULTS, **row}
    return generator.generate(
        [knobs.pop("prompt")], stop=knobs.pop("stop") or (), **knobs
    )[0]


def test_each_row_alone_and_in_a_mixed_batch_is_as_in_python(served, generator):
    together = ask(served, ROWS)
    for row, mixed in zip(ROWS, together, strict=True):
        expected = in_python(generator, row)
        same(ask(served, [row])[0], expected)
        same(mixed, expected)


def test_column_format_gives_the_same(served):
    rows = [wire(row) for row in ROWS]
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    status, outputs = served.column("generate", **columns)
    assert status == 200, outputs
    for name, values in outputs.items():
        assert values == [row[name] for row in ask(served, ROWS)]


def test_the_default_signature_takes_bare_prompts(served, generator):
    status, reply = served.predict({"instances": ["ab", "Hello, "]})
    assert status == 200
    room = POSITIONS - np.array([2, 7])
    expected = generator.generate(["ab", "Hello, "], max_new_tokens=room)
    assert reply["predictions"] == [row.text for row in expected]


def test_scores_are_as_in_python(served, generator):
    pairs = [("ab", "cde"), ("", "hi"), ("xyz", "")]
    rows = [{"prompt": a, "completion": b} for a, b in pairs]
    status, reply = served.predict({"signature_name": "score", "instances": rows})
    assert status == 200
    expected = generator.score(*zip(*pairs, strict=True))
    for name, values in expected.items():
        got = [row[name] for row in reply["predictions"]]
        np.testing.assert_allclose(got, values, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "bad",
    [
        {"max_new_tokens": -1},
        {"max_new_tokens": 10**9},
        {"temperature": math.nan},
        {"top_p": 0.0},
        {"repetition_penalty": 0.0},
        {"prompt": "x" * (POSITIONS + 1)},
        {"stop": ["x" * 257]},
    ],
)
def test_refusals_carry_python_s_sentence(served, generator, bad):
    row = {"prompt": "ab", **bad}
    with pytest.raises(ValueError) as refusal:
        in_python(generator, row)
    rule = str(refusal.value).partition("Received")[0]
    body = {"signature_name": "generate", "instances": [wire(row)]}
    status, reply = served.predict(body)
    assert status == 400
    assert rule in reply["error"]


def test_a_prompt_alone_is_told_every_input_that_it_lacks(served):
    lacking = sorted(DEFAULTS)
    told = f" Missing: {', '.join(lacking)}."
    body = {"signature_name": "generate", "instances": [{"prompt": "x"}]}
    status, reply = served.predict(body)
    assert status == 400
    assert 'object: {"prompt": "x"} keys must be equal to: max_new' in reply["error"]
    assert reply["error"].endswith(told)
    status, error = served.column("generate", prompt=["x"])
    assert (status, error.endswith(told)) == (400, True), error


def test_a_batch_of_none_is_an_empty_answer_where_json_can_say_it(served):
    assert served.column("serving_default", prompt=[]) == (200, [])
    status, outputs = served.column("score", prompt=[], completion=[])
    assert (status, outputs["log_prob"]) == (200, [])
    # `[]` has one dimension, and `stop` has two, of which JSON cannot tell.
    columns = {name: [] for name in wire(ROWS[0])}
    status, error = served.column("generate", **columns)
    assert status == 400
    assert "stop" in error
