"""Instruction tuning: the assistant's replies in conversations."""

import dataclasses

import numpy as np
import tensorflow as tf

from keras_llm import data
from keras_llm.tokenizers import ChatEncoder
from keras_llm.tokenizers.chat_format import check_messages
from keras_llm.training.task import (
    check_architecture,
    fill_in_vocabulary,
)
from keras_llm.training.tasks import examples as examples_lib
from keras_llm.training.tasks.target_tokens import TargetTokens

_TURNS = ("user", "assistant")
# Token by which a base model was taught that a text begins, where it has one.
_SEPARATOR = "endoftext"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chat(TargetTokens):
    """Writes the assistant's replies, from JSON lines {"messages": [...]}.

    A message is {"role": ..., "content": ...}. An optional one of the system comes
    first; user and assistant take turns, and the assistant has the last word. They
    become ids by the template of the model's own tokenizer.

    loss = -mean(log p(token[t] | token[< t])) over the tokens of the replies and of
    their ends; what others say is read and not learnt.

    With `data.separate_documents`, and where the tokenizer has a token `endoftext`
    beside the end of a message, several conversations share a row, and none sees
    another. Otherwise each has a row of its own. What exceeds `data.context` tokens is
    cut. Where the adapter is a prompt, every conversation begins with it.

    Judged by `loss` and `perplexity` of the replies' tokens.

    >>> Chat().kind
    'chat'
    """

    kind = "chat"

    def texts(self, source, config):
        """Yields every message's content."""
        for example in _read(source, config):
            for message in example["messages"]:
                yield examples_lib.utf8(message["content"])

    def fill_in(self, experiment, tokenizer, train_text):
        """Returns the experiment with the vocabulary's size and its separator.

        Raises:
            ValueError: The tokenizer knows no template.
        """
        del train_text
        check_architecture(self, experiment.model, "gemma", "gpt2", "llama", "lstm_lm")
        ChatEncoder(tokenizer)
        model = fill_in_vocabulary(experiment.model, tokenizer)
        separator = None
        if experiment.data.separate_documents:
            separator = tokenizer.special_ids.get(_SEPARATOR)
        return experiment.replace(model=model.replace(separator_id=separator))

    def batches(self, experiment, train_text, valid_text, tokenizer, team):
        """Returns rows of conversations, with weight 1 on the replies' tokens."""
        config = experiment.data
        return examples_lib.encoded_batches(
            lambda source: _read(source, config),
            lambda *part: self._encoded(experiment, tokenizer, *part),
            train_text,
            valid_text,
            config,
            team,
        )

    def _encoded(self, experiment, tokenizer, examples, split):
        if not examples:
            raise data.DataError(f"Examples are needed. Received: none for {split}.")
        size = experiment.data.context + 1
        separator = experiment.model.separator_id
        rows, left_out = [], np.zeros(len(examples), np.int64)
        encoder = ChatEncoder(tokenizer)
        for start in range(0, len(examples), examples_lib.CHUNK):
            part = examples[start : start + examples_lib.CHUNK]
            for i, (ids, marks) in enumerate(conversations(encoder, part), start):
                if separator is not None:
                    ids, marks = np.append(separator, ids), np.append(0, marks)
                left_out[i] = max(0, len(ids) - size)
                rows.append((ids[:size], marks[:size]))
        examples_lib.log_cut(split, left_out, experiment.data.context)
        if separator is not None:
            rows = packed_rows(rows, size)
        ids, marks = np.zeros((2, len(rows), size), np.int32)
        for i, (row, mark) in enumerate(rows):
            ids[i, : len(row)], marks[i, : len(row)] = row, mark
        learnt, in_vocabulary = marks > 0, ids < experiment.model.vocab_size
        return {
            "token_ids": ids[:, :-1],
            # A prompt's ids have no logits: without weight, any other does.
            "targets": np.where(learnt | in_vocabulary, ids, 0)[:, 1:],
            "weights": marks[:, 1:].astype(np.float32),
        }

    def count_tokens(self, batch):
        """Returns the tokens of all messages."""
        return examples_lib.count_to_padding(batch["token_ids"])


def packed_rows(
    rows: list[tuple[np.ndarray, np.ndarray]], size: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Joins neighbours into rows of at most `size` tokens; none is split.

    >>> short, long = np.arange(2), np.arange(4)
    >>> [len(ids) for ids, _ in packed_rows([(short, short), (long, long)] * 2, 6)]
    [6, 6]
    """
    joined: list[list[tuple[np.ndarray, np.ndarray]]] = []
    room = 0
    for row in rows:
        if len(row[0]) > room:
            joined.append([])
            room = size
        joined[-1].append(row)
        room -= len(row[0])
    return [
        (np.concatenate([r[0] for r in part]), np.concatenate([r[1] for r in part]))
        for part in joined
    ]


def conversations(encoder, examples):
    """Yields ids of each conversation, and marks: 1 where they are of a reply."""
    nested = [
        [
            [examples_lib.utf8(message[name]) for message in example["messages"]]
            for example in examples
        ]
        for name in ("role", "content")
    ]
    made = encoder.conversations(*map(tf.ragged.constant, nested))
    splits = made.ids.row_splits.numpy()
    ids, marks = made.ids.values.numpy(), made.is_reply.values.numpy()
    for begin, end in zip(splits[:-1], splits[1:], strict=True):
        yield ids[begin:end], marks[begin:end]


def _read(source, config):
    return data.read_examples(source, {"messages": list}, config, _check)


def _check(example):
    check_turns(example["messages"])


def check_turns(messages):
    """Raises ValueError unless messages are a conversation that ends with a reply."""
    check_messages(messages)
    roles = [message["role"] for message in messages]
    turns = roles[1:] if roles[:1] == ["system"] else roles
    if not turns or len(turns) % 2 or turns != list(_TURNS) * (len(turns) // 2):
        raise ValueError(
            "A conversation has one message of the system first, if any, then user "
            "and assistant in turn, the assistant last. Received the roles "
            f"{roles[:12]}."
        )
