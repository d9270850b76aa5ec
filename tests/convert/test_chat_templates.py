"""Chat templates against Jinja itself."""

import pathlib

import jinja2
import pytest
import tensorflow as tf

from keras_llm import tokenizers
from keras_llm.convert.chat_templates import adopt_template

LOOP = (
    "{% for message in messages %}SYSTEM{{'<|im_start|>' + message['role'] + '\\n' + "
    "message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
DEFAULT = (
    "{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\\n"
    "Be brief.<|im_end|>\\n' }}{% endif %}"
)
PLAIN, WITH_SYSTEM = LOOP.replace("SYSTEM", ""), LOOP.replace("SYSTEM", DEFAULT)
TEMPLATES = pathlib.Path(__file__).parents[2] / "testdata" / "chat_templates"
QWEN = (TEMPLATES / "qwen2_5.jinja").read_text("utf-8")
QWEN3 = (TEMPLATES / "qwen3.jinja").read_text("utf-8")
LLAMA = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}"
    "{% set content = '<|start_header_id|>' + message['role'] + "
    "'<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}"
    "{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}"
    "{{ content }}{% endfor %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}"
)
TALK = [
    {"role": "user", "content": "Hi\n there "},
    {"role": "assistant", "content": "Yes"},
    {"role": "user", "content": "一"},
]


def tokenizer(end="<|im_end|>"):
    alphabet = [bytes([b]) for b in range(256)]
    names = {"end": end, "bos": "<|im_start|>"}
    return tokenizers.ByteBPETokenizer(
        [*alphabet, b"", b""], [], {"end": 256, "bos": 257}, names
    )


def test_llama_trims_what_jinja_trims():
    alphabet = [bytes([b]) for b in range(256)]
    names = {
        "end": "<|eot_id|>",
        "bos": "<|begin_of_text|>",
        "start_header_id": "<|start_header_id|>",
        "end_header_id": "<|end_header_id|>",
    }
    special = {role: 256 + i for i, role in enumerate(names)}
    subject = tokenizers.ByteBPETokenizer([*alphabet, *[b""] * 4], [], special, names)
    adopt_template(subject, LLAMA, "here")
    # Spaces of every kind that Python strips, and one that it does not.
    spaces = "".join(chr(i) for i in range(0x3001) if chr(i).isspace())
    talk = [
        {"role": "system", "content": f"{spaces}a b{spaces}"},
        {"role": "user", "content": "\u200bc\u200b\n"},
        {"role": "assistant", "content": " d\ne "},
        {"role": "user", "content": "   "},
    ]
    roles, contents = ([[m[name] for m in talk]] for name in ("role", "content"))
    row = tokenizers.ChatEncoder(subject).prompts(roles, contents).to_list()[0]
    spelled = {special[role]: name.encode() for role, name in names.items()}
    printed = b"".join(spelled.get(i) or bytes([i]) for i in row).decode()
    assert printed == jinja2.Template(LLAMA).render(
        messages=talk, bos_token="<|begin_of_text|>"
    )


@pytest.mark.parametrize(
    "template", [PLAIN, WITH_SYSTEM, QWEN], ids=["plain", "system", "qwen2.5"]
)
def test_ids_are_those_of_the_printed_template(template):
    subject = tokenizer()
    adopt_template(subject, template, "here")
    roles, contents = ([[m[name] for m in TALK]] for name in ("role", "content"))
    row = tokenizers.ChatEncoder(subject).prompts(roles, contents).to_list()[0]
    spelled = {256: b"<|im_end|>", 257: b"<|im_start|>"}
    printed = b"".join(spelled.get(i, bytes([i % 256])) for i in row).decode()
    assert printed == jinja2.Template(template).render(
        messages=TALK, add_generation_prompt=True
    )


def thinking_tokenizer():
    """Returns one whose marks of thinking are tokens and not special."""
    alphabet = [bytes([b]) for b in range(256)]
    names = {"end": "<|im_end|>", "bos": "<|im_start|>"}
    return tokenizers.ByteBPETokenizer(
        [*alphabet, b"", b"", b"<think>", b"</think>"],
        [],
        {"end": 256, "bos": 257},
        names,
    )


def spelled(row):
    marks = {256: b"<|im_end|>", 257: b"<|im_start|>"}
    marks |= {258: b"<think>", 259: b"</think>"}
    return b"".join(marks.get(i, bytes([i % 256])) for i in row).decode()


THOUGHTS = [
    "Yes",
    "<think>\nIs it?\n</think>\n\nYes\n",
    "a</think>b<think>c</think>\n\n\n d",
    "</think>",
    "<think> on",
]


@pytest.mark.parametrize("reply", THOUGHTS)
@pytest.mark.parametrize("system", [[], [{"role": "system", "content": "Be brief."}]])
def test_qwen3_does_not_think_nor_read_what_it_thought(reply, system):
    subject = thinking_tokenizer()
    adopt_template(subject, QWEN3, "here")
    talk = [*system, *TALK]
    talk[-2] = {"role": "assistant", "content": reply}
    roles, contents = ([[m[name] for m in talk]] for name in ("role", "content"))
    row = tokenizers.ChatEncoder(subject).prompts(roles, contents).to_list()[0]
    assert row[-6:] == [258, 10, 10, 259, 10, 10]  # By their ids.
    assert spelled(row) == jinja2.Template(QWEN3).render(
        messages=talk, add_generation_prompt=True, enable_thinking=False
    )


def test_qwen3_learns_a_last_reply_behind_the_empty_thought():
    subject = thinking_tokenizer()
    adopt_template(subject, QWEN3, "here")
    talk = [*TALK, {"role": "assistant", "content": "No"}]
    rows = [[[m[name] for m in t] for t in (talk, TALK, [])] for name in talk[0]]
    made = tokenizers.ChatEncoder(subject).conversations(*map(tf.ragged.constant, rows))
    printed = [
        jinja2.Template(QWEN3).render(messages=messages) for messages in (talk, TALK)
    ]
    assert [spelled(row) for row in made.ids.to_list()] == [*printed, ""]
    is_reply = made.is_reply.to_list()[0]
    learnt = [i for i, m in zip(made.ids.to_list()[0], is_reply, strict=True) if m]
    assert spelled(learnt) == "Yes<|im_end|>No<|im_end|>"


def test_of_a_template_that_tells_the_date_it_is_said_what_to_do(caplog):
    dated = "{%- set date_string = strftime_now('%d %b %Y') %}" + LLAMA
    subject = tokenizer()
    adopt_template(subject, dated, "here")
    assert subject.chat is None
    assert "writes a date into the system's message" in caplog.text
    assert "tokenizer.use_chat" in caplog.text


@pytest.mark.parametrize(
    ("template", "end"),
    [
        (PLAIN + " ", "</s>"),
        (PLAIN.replace("'role'", "'name'"), "<|im_end|>"),
        (PLAIN + "{{ 'more' }}", "<|im_end|>"),
        (PLAIN.replace("<|im_start|>", "[INST]"), "<|im_end|>"),
        (QWEN.replace("Qwen", "Gwen"), "<|im_end|>"),
        (QWEN3 + " ", "<|im_end|>"),
        (QWEN3, "<|im_end|>"),  # The vocabulary lacks <think>.
        (LLAMA, "<|im_end|>"),  # The vocabulary lacks its tokens.
        ({"not": "text"}, "<|im_end|>"),
    ],
)
def test_what_is_not_known_is_left_with_a_warning(template, end, caplog):
    subject = tokenizer(end)
    adopt_template(subject, template, "here")
    assert subject.chat is None
    assert "The chat template of here is none that is known" in caplog.text


def test_no_template_is_no_warning(caplog):
    subject = tokenizer()
    adopt_template(subject, None, "here")
    assert subject.chat is None and not caplog.text
