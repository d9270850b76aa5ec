"""`scripts/generate.py` in a process of its own."""

import json
import pathlib

import keras
import pytest

from keras_llm import models, tokenizers
from keras_llm.generation import Generator
from tests import forked

SCRIPT = pathlib.Path(__file__).parents[2] / "scripts" / "generate.py"


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(5)
    config = models.GPT2Config(
        vocab_size=257, width=20, num_layers=1, num_heads=5, max_positions=32
    )
    return models.build(config)


@pytest.fixture(scope="module")
def generator(model):
    return Generator(model, tokenizers.ByteTokenizer())


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "small"
    models.save(model, folder, tokenizers.ByteTokenizer())
    return folder


def generate(folder, *flags, stdin=b""):
    return forked.run(SCRIPT, f"--model={folder}", *flags, stdin=stdin)


def test_prompts_of_any_bytes_give_one_object_each(generator, folder):
    prompts = ["文", b"a\xff\xc3"]
    knobs = {"max_new_tokens": 6, "temperature": 0.9, "seed": 3}
    done = generate(
        folder,
        *[b"--prompt=" + (p if isinstance(p, bytes) else p.encode()) for p in prompts],
        *[f"--{name}={value}" for name, value in knobs.items()],
        "--json",
    )
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    expected = generator.generate(prompts, **knobs)
    assert [row["token_ids"] for row in rows] == [row.token_ids for row in expected]
    assert [row["text"] for row in rows] == [row.text for row in expected]
    assert [row["prompt"] for row in rows] == ["文", "a\ufffd\ufffd"]


def test_standard_input_is_continued_as_it_is_written(generator, folder):
    # Of 32 positions 27 are left: the default asks for no more.
    done = generate(folder, stdin=b"tail\xc3")
    assert done.returncode == 0, done.stderr
    text = generator.generate([b"tail\xc3"], max_new_tokens=27)[0].text
    assert done.stdout == "tail\ufffd" + text + "\n"


def test_flags_that_would_change_nothing_are_refused(folder):
    done = generate(folder, "--prompt=a", "--num_beams=3", "--temperature=1", "--jit")
    assert done.returncode == 1
    assert "--temperature, --jit changes nothing with --num_beams" in done.stderr
    assert done.stdout.count("Traceback") == 0
