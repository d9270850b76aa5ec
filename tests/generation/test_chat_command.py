"""`scripts/chat.py` in a process of its own."""

import pathlib

import keras
import pytest

from keras_llm import models, tokenizers
from keras_llm.generation import Generator
from tests import forked
from tests.chat_tokenizer import chat_tokenizer

SCRIPT = pathlib.Path(__file__).parents[2] / "scripts" / "chat.py"
CONFIG = models.GPT2Config(
    vocab_size=259, width=20, num_layers=1, num_heads=5, max_positions=256
)


@pytest.fixture(scope="module")
def tokenizer():
    return chat_tokenizer()


@pytest.fixture(scope="module")
def folder(tokenizer, tmp_path_factory):
    keras.utils.set_random_seed(5)
    folder = tmp_path_factory.mktemp("models") / "small"
    models.save(models.build(CONFIG), folder, tokenizer)
    return folder


def said(role, content):
    return {"role": role, "content": content}


def test_each_line_is_answered_with_all_before_it(folder, tokenizer):
    generator = Generator(models.load(folder), tokenizer)
    knobs = {"max_new_tokens": 5, "temperature": 0.7, "seed": 3}
    talk, replies = [said("system", "s")], []
    for line in ("hi", "文"):
        talk.append(said("user", line))
        replies.append(generator.chat([talk], **knobs)[0].text)
        talk.append(said("assistant", replies[-1]))
    # After an empty line nothing is remembered.
    replies.append(generator.chat([[said("system", "s"), said("user", "hi")]], **knobs))
    replies[-1] = replies[-1][0].text
    done = forked.run(
        SCRIPT,
        f"--model={folder}",
        "--system=s",
        *[f"--{name}={value}" for name, value in knobs.items()],
        stdin="hi\n文\n\nhi".encode(),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "".join(f"{reply}\n" for reply in replies)
    assert replies[0] == replies[2] != replies[1]


def test_a_model_without_a_template_is_refused(folder, tmp_path):
    models.save(models.load(folder), tmp_path / "base", tokenizers.ByteTokenizer())
    done = forked.run(SCRIPT, f"--model={tmp_path / 'base'}", stdin=b"hi")
    assert done.returncode == 1
    assert "knows its template" in done.stderr.replace("\n", " ")


def test_unasked_a_reply_leaves_room_for_the_next_line(folder):
    done = forked.run(SCRIPT, f"--model={folder}", stdin=b"hi\nho")
    assert done.returncode == 0, done.stderr
