"""`python -m keras_llm.commands VERB`: the `keras-llm` command without its script."""

from keras_llm.commands import run

if __name__ == "__main__":
    run()
