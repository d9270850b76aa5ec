"""A tokenizer of single bytes that reads conversations, for models of 259 ids."""

from keras_llm import tokenizers


def chat_tokenizer() -> tokenizers.ByteBPETokenizer:
    """Returns it: id 256 ends a message, 257 opens one, 258 opens a document."""
    made = tokenizers.ByteBPETokenizer(
        [*(bytes([b]) for b in range(256)), b"", b"", b""],
        [],
        {"end": 256, "open": 257, "endoftext": 258},
        {"end": "<|close|>"},
    )
    made.use_chat(tokenizers.ChatFormat(open_ids=(257,), close_ids=(256,)))
    return made
