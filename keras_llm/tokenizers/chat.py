"""Conversations as token ids: a model's own template, assembled from ids."""

import dataclasses
from typing import Any, NamedTuple

import tensorflow as tf

from keras_llm.core import Config, checks

SYSTEM, USER, ASSISTANT = ROLES = ("system", "user", "assistant")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChatFormat(Config):
    """How messages become one sequence of ids.

    A message is: open_ids, its role, header_end_ids, header_text, its content,
    close_ids, after_text. What stands between two ids is encoded as one text. Text
    never turns into one of the ids: a user who types `<|im_end|>` has typed ten
    characters.

    >>> ChatFormat(open_ids=(1,), close_ids=())
    Traceback (most recent call last):
    ...
    ValueError: `open_ids` and `close_ids` must hold an id. Received: (1,), ().
    """

    begin_ids: tuple[int, ...] = ()  # Before the first message.
    open_ids: tuple[int, ...]
    header_end_ids: tuple[int, ...] = ()
    header_text: str = "\n"
    close_ids: tuple[int, ...]
    after_text: str = "\n"
    default_system: str = ""  # Content of the system message where none is given.

    def __post_init__(self):
        if not (self.open_ids and self.close_ids):
            raise ValueError(
                "`open_ids` and `close_ids` must hold an id. Received: "
                f"{self.open_ids}, {self.close_ids}."
            )
        for number in self.special_ids:
            checks.check_not_negative("id", number)

    @property
    def special_ids(self) -> tuple[int, ...]:
        """Returns every id that enters by number."""
        parts = (self.begin_ids, self.open_ids, self.header_end_ids, self.close_ids)
        return sum(parts, ())


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

    def __init__(self, tokenizer: Any):
        if tokenizer.chat is None:
            raise ValueError(
                "A conversation is read by a chat model's tokenizer, which knows its "
                f"template. Received: a tokenizer of kind {tokenizer.kind!r} without "
                "one. Import a chat model whose template is known (docs/chat.md), or "
                "set it by tokenizer.use_chat."
            )
        self.tokenizer = tokenizer
        self.format: ChatFormat = tokenizer.chat

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
        rows = tf.shape(roles)[0]
        opening = self._opening()
        asked = tf.RaggedTensor.from_row_lengths(
            tf.tile(opening, [rows]), tf.fill([rows], tf.size(opening))
        )
        return tf.concat([made.ids, asked.with_row_splits_dtype(tf.int64)], axis=1)

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
        ids, is_reply = self._messages(roles.values, contents.values)
        splits = tf.gather(ids.row_splits, tf.cast(roles.row_splits, tf.int64))
        both = [
            tf.RaggedTensor.from_row_splits(part.values, splits, validate=False)
            for part in (ids, is_reply)
        ]
        begin = self.format.begin_ids
        if begin:
            rows = tf.cast(roles.nrows(), tf.int32)
            for i, value in enumerate((begin, [0] * len(begin))):
                flat = tf.tile(tf.constant(value, tf.int32), [rows])
                lengths = tf.fill([rows], len(begin))
                start = tf.RaggedTensor.from_row_lengths(flat, lengths)
                both[i] = tf.concat(
                    [start.with_row_splits_dtype(tf.int64), both[i]], axis=1
                )
        return Conversations(*both)

    def _messages(self, roles_K, contents_K):
        """Returns ragged ids [K, (N)] and where they are of a reply."""
        form = self.format
        is_reply = tf.equal(roles_K, ASSISTANT)
        nothing = tf.zeros_like(contents_K)
        head = tf.fill(tf.shape(roles_K), form.header_text)
        given = tf.where(is_reply, nothing, contents_K)
        if form.header_end_ids:
            role, rest = roles_K, tf.strings.join([head, given])
        else:
            role, rest = nothing, tf.strings.join([roles_K, head, given])
        pieces = [
            (self._constant(form.open_ids, roles_K), False),
            (self._encoded(role), False),
            (self._constant(form.header_end_ids, roles_K), False),
            (self._encoded(rest), False),
            (self._encoded(tf.where(is_reply, contents_K, nothing)), True),
            (self._constant(form.close_ids, roles_K), True),
            (self._encoded(tf.fill(tf.shape(roles_K), form.after_text)), False),
        ]
        mark_K = tf.cast(is_reply, tf.int32)
        marks = [
            piece.with_values(tf.gather(mark_K * int(counts), _rows(piece)))
            for piece, counts in pieces
        ]
        return tf.concat([p for p, _ in pieces], axis=1), tf.concat(marks, axis=1)

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

    def _opening(self):
        """Returns the ids [N] that open a reply."""
        form, encode = self.format, self.tokenizer.encode
        if form.header_end_ids:
            texts = [encode(ASSISTANT), form.header_end_ids, encode(form.header_text)]
        else:
            texts = [encode(ASSISTANT + form.header_text)]
        parts = [form.open_ids, *texts]
        return tf.concat([tf.cast(part, tf.int32) for part in parts], axis=0)

    def _encoded(self, texts_K):
        return self.tokenizer.encode(texts_K).with_row_splits_dtype(tf.int64)

    def _constant(self, ids, like_K):
        """Returns the same ids in each of K rows."""
        rows = tf.size(like_K)
        values = tf.tile(tf.constant(list(ids), tf.int32), [rows])
        lengths = tf.fill([rows], len(ids))
        return tf.RaggedTensor.from_row_lengths(
            values, lengths, validate=False
        ).with_row_splits_dtype(tf.int64)


def _rows(ragged):
    """Returns the row of each value, without a matrix of all rows."""
    position = tf.range(tf.size(ragged.values, tf.int64))
    return tf.searchsorted(ragged.row_splits, position, side="right") - 1


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
    rules = [
        (known, 'Every role must be "system", "user" or "assistant" ("" fills up)'),
        (
            tf.where(inside, follows, fills) & (lengths > 0)[:, None],
            "A conversation must have at least one message, one of the system first if "
            "any, then user and assistant in turn, the user last",
        ),
    ]
    holds_all = [(tf.reduce_all(holds), rule) for holds, rule in rules]
    empty = tf.reduce_all(lengths > 0)
    holds_all[1] = holds_all[1][0] & empty, holds_all[1][1]
    return [
        tf.debugging.Assert(holds, [f"{rule}. Received the roles:", roles], summarize=8)
        for holds, rule in holds_all
    ]
