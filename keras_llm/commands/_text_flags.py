"""The flags of every verb that reads raw text, adopted by each as its own."""

from absl import flags

JSON_FIELD = flags.DEFINE_string(
    "json_field", "text", "Member of each JSON line that holds its text."
)
INVALID_UTF8 = flags.DEFINE_enum(
    "invalid_utf8",
    "error",
    ["error", "replace"],
    "What to do where the text is not UTF-8: stop, or read U+FFFD.",
)
