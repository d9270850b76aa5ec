"""Runs `keras-llm chat`; see `keras_llm/commands/chat.py`."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

from keras_llm.commands import run

if __name__ == "__main__":
    run("chat")
