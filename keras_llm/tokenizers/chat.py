"""Conversations as token ids: a model's own template, assembled from ids."""

import re
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from keras_llm.tokenizers.chat_format import ASSISTANT, ROLES, SYSTEM, USER, ChatFormat
from keras_llm.tokenizers.tokenizer import Tokenizer, rows_of_values

# White space at either end of a text, as Python and Jinja see it.
_SPACE = r"[\t-\r\x{1c}-\x{20}\x{85}\p{Z}]"
_ENDS = rf"\A{_SPACE}+|{_SPACE}+\z"


class Conversations(NamedTuple):
    """Ragged ids [B, (N)], and 1 where an id is of a reply, 0 elsewhere."""

    ids: tf.RaggedTensor
    is_reply: tf.RaggedTensor


class ChatEncoder:
    """Turns conversations into ids, in the graph.

    Args:
        tokenizer: One that has a `chat` format.

    Raises:
        ValueError: It has none.
    """

    def __init__(self, tokenizer: Tokenizer):
        if tokenizer.chat is None:
            raise ValueError(
                "A conversation is read by a chat model's tokenizer, which knows its "
                f"template. Received: a tokenizer of kind {tokenizer.kind!r} without "
                "one. Import a chat model whose template is known (docs/chat.md), or "
                "set it by tokenizer.use_chat."
            )
        self.tokenizer = tokenizer
        self.format: ChatFormat = tokenizer.chat
        form, encode = self.format, tokenizer.encode
        with tf.init_scope(), tf.device("CPU:0"):  # Once, not with each request.
            self._after = encode(form.after_text).numpy()
            if form.header_end_ids:
                texts = [
                    encode(ASSISTANT),
                    form.header_end_ids,
                    encode(form.header_text),
                ]
            else:
                texts = [encode(ASSISTANT + form.header_text)]
            self._opening = np.concatenate([form.open_ids, *texts, form.reply_ids])

    def prompts(self, roles: Any, contents: Any) -> tf.RaggedTensor:
        """Returns the ids [B, (N)] after which the assistant's next reply is due.

        An optional message of the system comes first; user and assistant take turns;
        the user has the last word. What follows it in a row may only fill the row up:
        messages of role "", or copies of the first, as TF Serving makes them when it
        joins requests of unlike lengths.

        Args:
            roles: String [B, M]: "system", "user", "assistant", or "".
            contents: String [B, M].

        Raises:
            tf.errors.InvalidArgumentError: When run, on another role or order.
        """
        roles, contents = tf.convert_to_tensor(roles), tf.convert_to_tensor(contents)
        with tf.control_dependencies([_check_shapes(roles, contents)]):
            roles, contents = tf.identity(roles), tf.identity(contents)
        lengths = _lengths(roles)
        with tf.control_dependencies(_check_order(roles, contents, lengths)):
            roles, contents = tf.identity(roles), tf.identity(contents)
        made = self.conversations(
            tf.RaggedTensor.from_tensor(roles, lengths),
            tf.RaggedTensor.from_tensor(contents, lengths),
        )
        asked = _repeated(self._opening, tf.shape(roles)[0])
        return tf.concat([made.ids, asked], axis=1)

    def conversations(self, roles: Any, contents: Any) -> Conversations:
        """Returns whole conversations, and which of their ids are replies.

        Nothing is checked. A reply's ids are those of its content, encoded by itself
        as a model writes it, and of its end.

        Args:
            roles: String RaggedTensor [B, (M)].
            contents: String RaggedTensor [B, (M)].
        """
        if self.format.default_system:
            roles, contents = self._with_system(roles, contents)
        texts = contents.values
        if self.format.trims:
            texts = tf.strings.regex_replace(texts, _ENDS, "")
        if self.format.thought_end:
            is_reply = tf.equal(roles.values, ASSISTANT)
            texts = tf.where(is_reply, self._without_thought(texts), texts)
        ids, is_reply = self._messages(roles, texts)
        splits = tf.gather(ids.row_splits, tf.cast(roles.row_splits, tf.int64))
        begin = _repeated(self.format.begin_ids, roles.nrows())
        return Conversations(
            *(
                tf.concat([start, _in_rows(part.values, splits)], axis=1)
                for start, part in ((begin, ids), (tf.zeros_like(begin), is_reply))
            )
        )

    def _without_thought(self, texts_K):
        r"""Returns texts from behind the last `thought_end` on; \C is any byte."""
        mark = re.escape(self.format.thought_end)
        return tf.strings.regex_replace(texts_K, rf"\A\C*{mark}\n*", "")

    def _messages(self, roles, contents_K):
        """Returns ragged ids [K, (N)] and where they are of a reply."""
        form, roles_K = self.format, roles.values
        count = tf.size(roles_K)
        is_reply = tf.equal(roles_K, ASSISTANT)
        nothing = tf.zeros_like(contents_K)
        head = tf.fill(tf.shape(roles_K), form.header_text)
        given = tf.where(is_reply, nothing, contents_K)
        if form.header_end_ids:
            ends = _repeated(form.header_end_ids, count)
            header = [self._encoded(roles_K), ends]
            header.append(self._encoded(tf.strings.join([head, given])))
        else:
            header = [self._encoded(tf.strings.join([roles_K, head, given]))]
        before = tf.concat([_repeated(form.open_ids, count), *header], axis=1)
        if form.reply_ids:
            due = tf.cast(is_reply & _is_last(roles), tf.int64)
            opened = _repeated(form.reply_ids, tf.reduce_sum(due)).values
            lengths = due * len(form.reply_ids)
            opened = tf.RaggedTensor.from_row_lengths(opened, lengths, validate=False)
            before = tf.concat([before, opened], axis=1)
        own = self._encoded(tf.where(is_reply, contents_K, nothing))
        own = tf.concat([own, _repeated(form.close_ids, count)], axis=1)
        after = _repeated(self._after, count)
        marks = tf.gather(tf.cast(is_reply, tf.int32), rows_of_values(own))
        parts = [tf.zeros_like(before), own.with_values(marks), tf.zeros_like(after)]
        return tf.concat([before, own, after], axis=1), tf.concat(parts, axis=1)

    def _with_system(self, roles, contents):
        """Returns both with the default message where the first is not the system's."""
        # A row without a message cannot be read: it gets one too.
        first = roles[:, :1].to_tensor("", shape=[None, 1])[:, 0]
        lacks = tf.cast(tf.not_equal(first, SYSTEM), tf.int64)
        count = tf.reduce_sum(lacks)

        def led(value, rows):
            start = tf.RaggedTensor.from_row_lengths(tf.fill([count], value), lacks)
            rows = rows.with_row_splits_dtype(tf.int64)
            return tf.concat([start, rows], axis=1)

        return led(SYSTEM, roles), led(self.format.default_system, contents)

    def _encoded(self, texts_K):
        return self.tokenizer.encode(texts_K).with_row_splits_dtype(tf.int64)


def _is_last(roles):
    """Returns bool [K]: which messages are their conversation's last."""
    ends = roles.row_splits[1:, None]
    number = tf.range(1, tf.size(roles.values, ends.dtype) + 1)
    return tf.reduce_any(number[None] == ends, axis=0)


def _repeated(ids, count):
    """Returns the same ids in each of so many rows."""
    values = tf.tile(tf.constant(np.array(ids, np.int32)), [count])
    splits = tf.range(tf.cast(count, tf.int64) + 1) * len(ids)
    return _in_rows(values, splits)


def _in_rows(values, splits):
    return tf.RaggedTensor.from_row_splits(values, splits, validate=False)


def _check_shapes(roles, contents):
    return tf.debugging.Assert(
        tf.reduce_all(tf.equal(tf.shape(roles), tf.shape(contents))),
        [
            "`roles` and `contents` must have one shape. Received:",
            tf.shape(roles),
            tf.shape(contents),
        ],
    )


def _lengths(roles):
    """Returns int64 [B]: the messages up to the user's last word, 0 without one."""
    after = tf.pad(roles[:, 1:], [[0, 0], [0, 1]], constant_values="")
    ends = tf.equal(roles, USER) & tf.not_equal(after, ASSISTANT)
    place = tf.range(1, tf.shape(roles, tf.int64)[1] + 1)[None]
    most = tf.shape(roles, tf.int64)[1] + 1
    first = tf.reduce_min(tf.where(ends, place, most), axis=1)
    # Of no column the least is the type's greatest.
    return tf.where(first < most, first, tf.zeros_like(first))


def _check_order(roles, contents, lengths):
    """Returns ops that fail on what is no conversation, naming its roles."""
    column = tf.range(tf.shape(roles, tf.int64)[1])[None]
    inside = column < lengths[:, None]
    before = tf.pad(roles[:, :-1], [[0, 0], [1, 0]], constant_values="")[
        :, : tf.shape(roles)[1]
    ]
    first = column == 0
    is_user, is_reply = tf.equal(roles, USER), tf.equal(roles, ASSISTANT)
    after_user = tf.equal(before, USER) & ~first
    follows = tf.equal(roles, SYSTEM) & first
    follows |= is_user & ~after_user
    follows |= is_reply & after_user
    same = tf.equal(roles, roles[:, :1]) & tf.equal(contents, contents[:, :1])
    fills = tf.equal(roles, "") | same
    known = tf.reduce_any(
        tf.equal(roles[:, :, None], tf.constant([*ROLES, ""])[None, None]), axis=-1
    )
    in_turn = tf.reduce_all(tf.where(inside, follows, fills))
    rules = {
        'Every role must be "system", "user" or "assistant" ("" fills up)': (
            tf.reduce_all(known)
        ),
        "A conversation must have at least one message, one of the system first if "
        "any, then user and assistant in turn, the user last": (
            in_turn & tf.reduce_all(lengths > 0)
        ),
    }
    return [
        tf.debugging.Assert(holds, [f"{rule}. Received the roles:", roles], summarize=8)
        for rule, holds in rules.items()
    ]
