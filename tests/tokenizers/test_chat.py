"""Conversations against the template written out in Python."""

import itertools

import pytest
import tensorflow as tf

from keras_llm import tokenizers
from keras_llm.tokenizers import ChatEncoder, ChatFormat

OPEN, CLOSE, HEADER, BEGIN = range(257, 261)
CHATML = ChatFormat(open_ids=(OPEN,), close_ids=(CLOSE,), default_system="Be kind.")
LLAMA3 = ChatFormat(
    begin_ids=(BEGIN,),
    open_ids=(OPEN,),
    header_end_ids=(HEADER,),
    header_text="\n\n",
    close_ids=(CLOSE,),
    after_text="",
)


def make(chat):
    """Returns byte-level BPE whose merges join across what a template joins."""
    alphabet = [bytes([b]) for b in range(256)]
    tokenizer = tokenizers.ByteBPETokenizer(
        [*alphabet, b"\n\n", b"", b"", b"", b""],
        [(b"\n", b"\n")],
        {"end": CLOSE, "open": OPEN, "header": HEADER, "begin": BEGIN},
    )
    tokenizer.use_chat(chat)
    return tokenizer


def written(chat, conversation, reply=True):
    """Returns the ids of a conversation, by Python, one message after the other."""
    encode = make(chat).encode
    messages = list(conversation)
    if chat.default_system and messages[0][0] != "system":
        messages.insert(0, ("system", chat.default_system))
    ids = list(chat.begin_ids)

    def header(role):
        if chat.header_end_ids:
            yield from (OPEN, *encode(role).numpy(), HEADER)
        else:
            yield OPEN

    for role, content in messages:
        ids += header(role)
        start = chat.header_text if chat.header_end_ids else role + chat.header_text
        if role == "assistant":
            ids += [*encode(start).numpy(), *encode(content).numpy()]
        else:
            ids += encode(start + content).numpy().tolist()
        ids += [CLOSE, *encode(chat.after_text).numpy()]
    if reply:
        ids += header("assistant")
        start = chat.header_text
        ids += (
            encode(start if chat.header_end_ids else "assistant" + start)
            .numpy()
            .tolist()
        )
    return ids


TALKS = [
    [("user", "hi")],
    [("system", ""), ("user", "\nnew line")],
    [("user", "<|im_end|>"), ("assistant", "\nyes 一"), ("user", "")],
]


def columns(talks, fill):
    most = max(map(len, talks))
    return [
        tf.constant(
            [
                [m[i] for m in talk] + [fill(talk)[i]] * (most - len(talk))
                for talk in talks
            ]
        )
        for i in (0, 1)
    ]


@pytest.mark.parametrize("chat", [CHATML, LLAMA3], ids=["chatml", "llama3"])
@pytest.mark.parametrize(
    "fill", [lambda _: ("", ""), lambda talk: talk[0]], ids=["empty", "tf_serving"]
)
def test_prompts_are_the_template(chat, fill):
    encoder = ChatEncoder(make(chat))
    together = encoder.prompts(*columns(TALKS, fill)).to_list()
    assert together == [written(chat, talk) for talk in TALKS]
    traced = tf.function(encoder.prompts, autograph=False)
    assert traced(*columns(TALKS, fill)).to_list() == together
    for talk, row in zip(TALKS, together, strict=True):
        assert encoder.prompts(*columns([talk], fill)).to_list() == [row]


@pytest.mark.parametrize("chat", [CHATML, LLAMA3], ids=["chatml", "llama3"])
def test_replies_are_marked_with_their_ends(chat):
    talks = [
        [("user", "a"), ("assistant", "xy")],
        [("system", "s"), ("user", "b"), ("assistant", "")],
        [("user", "b"), ("assistant", ""), ("user", "c"), ("assistant", "z")],
    ]
    encoder = ChatEncoder(make(chat))
    made = encoder.conversations(
        *(tf.ragged.constant([[m[i] for m in talk] for talk in talks]) for i in (0, 1))
    )
    assert made.ids.to_list() == [written(chat, talk, reply=False) for talk in talks]
    for ids, marks, talk in zip(
        made.ids.to_list(), made.is_reply.to_list(), talks, strict=True
    ):
        replies = [text.encode() for role, text in talk if role == "assistant"]
        learnt = [i for i, mark in zip(ids, marks, strict=True) if mark]
        assert learnt == list(itertools.chain(*([*text, CLOSE] for text in replies)))


def test_a_conversation_and_its_prompt_agree():
    """What a reply is learnt after is what it is asked for after."""
    encoder = ChatEncoder(make(CHATML))
    talk = [("user", "a"), ("assistant", "xy")]
    whole = encoder.conversations(
        *(tf.ragged.constant([[m[i] for m in talk]]) for i in (0, 1))
    )
    prompt = encoder.prompts(*columns([talk[:1]], lambda _: ("", ""))).to_list()[0]
    assert whole.ids.to_list()[0][: len(prompt)] == prompt
    assert whole.is_reply.to_list()[0][: len(prompt)] == [0] * len(prompt)
    assert whole.is_reply.to_list()[0][len(prompt)] == 1


def test_text_never_turns_into_a_special_token():
    encoder = ChatEncoder(make(CHATML))
    names = make(CHATML).special_names.values()
    row = encoder.prompts([["user"]], [["".join(names)]]).to_list()[0]
    assert row.count(OPEN) == 3  # System, user, and the reply.
    assert row.count(CLOSE) == 2


@pytest.mark.parametrize(
    ("roles", "message"),
    [
        ([], "at least one message"),
        ([""], "at least one message"),
        (["bot"], "Every role must be"),
        (["system"], "at least one message"),
        (["assistant", "user"], "in turn"),
        (["user", "assistant"], "the user last"),
        (["user", "system", "user"], "in turn"),
        (["user", "", "user"], "in turn"),
        (["system", "system", "user"], "in turn"),
    ],
)
def test_what_is_no_conversation_is_refused(roles, message):
    encoder = ChatEncoder(make(CHATML))
    contents = [f"{i}" for i in range(len(roles))]
    shape = [1, len(roles)]
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        encoder.prompts(
            tf.constant([roles], tf.string, shape),
            tf.constant([contents], tf.string, shape),
        )


def test_one_bad_row_among_good_ones_is_refused():
    encoder = ChatEncoder(make(CHATML))
    with pytest.raises(tf.errors.InvalidArgumentError, match="in turn"):
        encoder.prompts([["user"], ["assistant"]], [["a"], ["b"]])
    with pytest.raises(tf.errors.InvalidArgumentError, match="one shape"):
        encoder.prompts([["user"]], [["a", "b"]])


def test_a_format_is_saved_with_its_tokenizer(tmp_path):
    tokenizer = make(LLAMA3)
    tokenizer.save(tmp_path)
    assert tokenizers.load(tmp_path).chat == LLAMA3


def test_what_cannot_be_a_template_is_refused():
    tokenizer = make(CHATML)
    with pytest.raises(ValueError, match="must be special ones"):
        tokenizer.use_chat(ChatFormat(open_ids=(65,), close_ids=(CLOSE,)))
    with pytest.raises(ValueError, match="must close a message"):
        tokenizer.use_chat(ChatFormat(open_ids=(OPEN,), close_ids=(OPEN,)))
    with pytest.raises(ValueError, match="without one"):
        ChatEncoder(tokenizers.ByteTokenizer())
