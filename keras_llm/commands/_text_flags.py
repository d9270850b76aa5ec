"""The flags of every verb that reads raw text, adopted by each as its own."""

from typing import Any

from absl import flags

_JSON_FIELD = flags.DEFINE_string(
    "json_field", "text", "Member of each JSON line that holds its text."
)
_DOCUMENT_SEPARATOR = flags.DEFINE_string(
    "document_separator",
    None,
    r"Text between the documents of a plain file, \n and \t understood; by default "
    "a file is one document.",
)
_UNICODE_FORM = flags.DEFINE_enum(
    "unicode_form", "none", ["none", "nfc"], "Unicode normalisation of the text."
)
_INVALID_UTF8 = flags.DEFINE_enum(
    "invalid_utf8",
    "error",
    ["error", "replace"],
    "What to do where the text is not UTF-8: stop, or read U+FFFD.",
)


def given() -> dict[str, Any]:
    """Returns the flags' values by the names of `data.TextConfig`'s fields."""
    separator = _DOCUMENT_SEPARATOR.value
    if separator is not None:
        separator = separator.replace(r"\n", "\n").replace(r"\t", "\t")
    return {
        "json_field": _JSON_FIELD.value,
        "document_separator": separator,
        "unicode_form": _UNICODE_FORM.value,
        "invalid_utf8": _INVALID_UTF8.value,
    }
