"""Chat templates of other libraries, recognised as a whole or not at all.

A template is a program in Jinja. None is run here: those that are known are compared
character by character, but for white space between the parts and the default text of
the system.
"""

import hashlib
import logging
import re
from typing import Any

from keras_llm.tokenizers import ChatFormat, Tokenizer

_log = logging.getLogger(__name__)

# "{% for %}...{% endfor %}" with white space taken out around braces and plus signs.
_SYSTEM = (
    r"(?:\{%if loop\.first and messages\[0\]\['role'\] != 'system'%\}"
    r"\{\{'<\|im_start\|>system\n(?P<system>[^'{}<>]*)<\|im_end\|>\n'\}\}\{%endif%\})?"
)
_CHATML = re.compile(
    r"\{%for message in messages%\}" + _SYSTEM + r"\{\{'<\|im_start\|>'\+"
    r"message\['role'\]\+'\n'\+message\['content'\]\+'<\|im_end\|>'\+'\n'\}\}"
    r"\{%endfor%\}\{%if add_generation_prompt%\}"
    r"\{\{'<\|im_start\|>assistant\n'\}\}\{%endif%\}"
)

# Qwen2.5's, of which the part without tools is ChatML: too long to be spelt again.
_QWEN2_5 = "cd8e9439f0570856fd70470bf8889ebd8b5d1107207f67a5efb46e342330527f"
_QWEN2_5_SYSTEM = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
# Qwen3's without tools and with `enable_thinking` false.
_QWEN3 = "87a2728cb8dc9fe424d624542f6060ec05a1d285ebbec578bb078900e33396b5"
_THINK, _THOUGHT = "<think>", "</think>"
# Llama 3's first, which trims contents. Later ones tell the date.
_LLAMA3 = re.compile(
    r"\{%set loop_messages = messages%\}\{%for message in loop_messages%\}"
    r"\{%set content = '<\|start_header_id\|>'\+message\['role'\]\+"
    r"'<\|end_header_id\|>\n\n'\+message\['content'\] \| trim\+'<\|eot_id\|>'%\}"
    r"\{%if loop\.index0 == 0%\}\{%set content = bos_token\+content%\}\{%endif%\}"
    r"\{\{content\}\}\{%endfor%\}(?:\{%if add_generation_prompt%\})?"
    r"\{\{'<\|start_header_id\|>assistant<\|end_header_id\|>\n\n'\}\}(?:\{%endif%\})?"
)


_DATES = r"strftime_now|date_string|Today Date"
_DATED = (
    " It writes a date into the system's message, as Llama 3.1's and later ones do; "
    "that is not supported, since an export does not know the day. To chat, give the "
    "tokenizer a template without one (tokenizer.use_chat, docs/chat.md), and put the "
    "date into your own system message."
)


def adopt_template(tokenizer: Tokenizer, template: Any, source: Any) -> None:
    """Lets a tokenizer read conversations if a template is one that is known.

    Known are ChatML, as SmolLM2 has it, with or without a default system message,
    Qwen2.5's and Qwen3's without tools, the latter without thinking, and Llama 3's
    first. Of another one a warning tells that the model will not chat.

    Args:
        tokenizer: The tokenizer that the template is for.
        template: Jinja, or None where a model has none.
        source: Where it is from, for the warning.
    """
    if template is None:
        return
    form = _format(tokenizer, template) if isinstance(template, str) else None
    if form is None or form.close_ids != (tokenizer.end_id,):
        _log.warning(
            "The chat template of %s is none that is known (ChatML, ended by its "
            "<|im_end|>; Qwen2.5's; Qwen3's; Llama 3's first): the model is imported "
            "without one, and will not chat.%s",
            source,
            _DATED if _tells_the_date(template) else "",
        )
        return
    tokenizer.use_chat(form)


def _tells_the_date(template: Any) -> bool:
    return isinstance(template, str) and bool(re.search(_DATES, template))


def _format(tokenizer: Tokenizer, template: str) -> ChatFormat | None:
    """Returns what a template does, if it is known and the tokenizer has its tokens."""
    ids = {name: tokenizer.special_ids[role] for role, name in _names(tokenizer)}

    def numbers(*names):
        return tuple(ids[name] for name in names)

    try:
        if _LLAMA3.fullmatch(_tidy(template)):
            return ChatFormat(
                begin_ids=numbers("<|begin_of_text|>"),
                open_ids=numbers("<|start_header_id|>"),
                header_end_ids=numbers("<|end_header_id|>"),
                header_text="\n\n",
                close_ids=numbers("<|eot_id|>"),
                after_text="",
                trims=True,
            )
        if _sha256(template) == _QWEN3:
            gap = tuple(tokenizer.encode("\n\n").numpy().tolist())
            think, thought = (_number(tokenizer, t) for t in (_THINK, _THOUGHT))
            return ChatFormat(
                open_ids=numbers("<|im_start|>"),
                close_ids=numbers("<|im_end|>"),
                reply_ids=(think, *gap, thought, *gap),
                thought_end=_THOUGHT,
            )
        system = _system(template)
        if system is not None:
            return ChatFormat(
                open_ids=numbers("<|im_start|>"),
                close_ids=numbers("<|im_end|>"),
                default_system=system,
            )
    except KeyError:  # Its vocabulary lacks a token of the template.
        return None
    return None


def _system(template: str) -> str | None:
    """Returns the default system message of a ChatML, None of another template."""
    if _sha256(template) == _QWEN2_5:
        return _QWEN2_5_SYSTEM
    found = _CHATML.fullmatch(_tidy(template))
    return None if found is None else found["system"] or ""


def _sha256(template: str) -> str:
    return hashlib.sha256(template.encode()).hexdigest()


def _number(tokenizer: Tokenizer, spelling: str) -> int:
    """Returns the id of a token that is in no text, special or not."""
    found = [i for i, b in enumerate(tokenizer.token_bytes) if b == spelling.encode()]
    if len(found) != 1:
        raise KeyError(spelling)
    return found[0]


def _names(tokenizer):
    return getattr(tokenizer, "special_names", {}).items()


def _tidy(template: str) -> str:
    """Returns a template without white space that Jinja does not print."""
    template = template.replace("\\n", "\n")
    template = re.sub(r"\{%-?\s*(.*?)\s*-?%\}\s*", r"{%\1%}", template, flags=re.S)
    template = re.sub(r"\{\{-?[ ]*", "{{", template)
    template = re.sub(r"[ ]*-?\}\}\s*", "}}", template)
    return re.sub(r"[ ]*\+[ ]*", "+", template).strip()
