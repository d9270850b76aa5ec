"""A chat model's template, as data: ids around a message and the text between."""

import dataclasses

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
    trims: bool = False  # Whether white space at the ends of a content goes.
    default_system: str = ""  # Content of the system message where none is given.
    # Between the header and the content of a conversation's last reply, and where the
    # next one is due: a model that thinks is told so that it has done so.
    reply_ids: tuple[int, ...] = ()
    # Replies given back lose what stands up to the last of these, and line breaks
    # behind it: what a model has thought is not read again.
    thought_end: str = ""

    def __post_init__(self):
        if not (self.open_ids and self.close_ids):
            raise ValueError(
                "`open_ids` and `close_ids` must hold an id. Received: "
                f"{self.open_ids}, {self.close_ids}."
            )
        for number in self.special_ids + self.reply_ids:
            checks.check_not_negative("id", number)

    @property
    def special_ids(self) -> tuple[int, ...]:
        """Returns every id around a message, of which none may come from text."""
        parts = (self.begin_ids, self.open_ids, self.header_end_ids, self.close_ids)
        return sum(parts, ())


def check_messages(messages: object) -> None:
    """Raises ValueError unless these are messages: mappings of two texts each."""
    for message in messages if isinstance(messages, (list, tuple)) else [messages]:
        if not isinstance(message, dict) or not all(
            isinstance(message.get(name), str) for name in ("role", "content")
        ):
            raise ValueError(
                "A message holds `role` and `content`, two texts. Received: "
                f"{str(message)[:100]}."
            )
