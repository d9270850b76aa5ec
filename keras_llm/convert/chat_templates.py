"""Chat templates of other libraries, recognised as a whole or not at all.

A template is a program in Jinja. None is run here: those that are known are compared
character by character, but for white space between the parts and the default text of
the system.
"""

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


def adopt_template(tokenizer: Tokenizer, template: Any, source: Any) -> None:
    """Lets a tokenizer read conversations if a template is one that is known.

    Known is ChatML, as SmolLM2 has it, with or without a default system message. Of
    another one a warning tells that the model will not chat.

    Args:
        tokenizer: The tokenizer that the template is for.
        template: Jinja, or None where a model has none.
        source: Where it is from, for the warning.
    """
    if template is None:
        return
    found = _CHATML.fullmatch(_tidy(template)) if isinstance(template, str) else None
    ids = {name: tokenizer.special_ids.get(role) for role, name in _names(tokenizer)}
    opening, closing = ids.get("<|im_start|>"), ids.get("<|im_end|>")
    if found is None or opening is None or closing != tokenizer.end_id:
        _log.warning(
            "The chat template of %s is none that is known (ChatML, ended by its "
            "<|im_end|>): the model is imported without one, and will not chat.",
            source,
        )
        return
    tokenizer.use_chat(
        ChatFormat(
            open_ids=(opening,),
            close_ids=(closing,),
            default_system=found["system"] or "",
        )
    )


def _names(tokenizer):
    return getattr(tokenizer, "special_names", {}).items()


def _tidy(template: str) -> str:
    """Returns a template without white space that Jinja does not print."""
    template = template.replace("\\n", "\n")
    template = re.sub(r"\{%-?\s*(.*?)\s*-?%\}\s*", r"{%\1%}", template, flags=re.S)
    template = re.sub(r"\{\{-?[ ]*", "{{", template)
    template = re.sub(r"[ ]*-?\}\}\s*", "}}", template)
    return re.sub(r"[ ]*\+[ ]*", "+", template).strip()
