"""The card beside an export: what it is and how to ask it."""

import pathlib

from keras_llm.export.arithmetic import TOLERANCES, compute_dtype
from keras_llm.generation import TextModel
from keras_llm.models import count_parameters


def card(text_model: TextModel, out: pathlib.Path, jit: bool, compared: int) -> str:
    """Returns the card in Markdown.

    Args:
        text_model: The exported model.
        out: The version folder; its parent's name is the model's name.
        jit: Whether decoding is compiled by XLA.
        compared: Answers that were compared in a fresh process; 0 for none.
    """
    model, config = text_model.model, text_model.model.config
    name, dtype = out.absolute().parent.name, compute_dtype(model)
    limit = getattr(config, "max_positions", None)
    new_tokens = min(32, (limit or 64) // 2)
    proof = (
        f"{compared} answers compared with the model in memory, from a moved folder, "
        "in a process without keras_llm: identical text, log probabilities within "
        f"{TOLERANCES[dtype]:g}."
        if compared
        else "Not verified: exported with `--verify=false`."
    )
    start = (
        "Start TF Serving with `--xla_cpu_compilation_enabled=true`."
        if jit
        else "Stock TF Serving runs it as it is."
    )
    return f"""# {name}, version {out.name}

A SavedModel that takes and returns strings. {start}

| | |
| --- | --- |
| architecture | {config.architecture} |
| parameters | {count_parameters(model):,} |
| dtype | {dtype} |
| tokens per request | {limit or "not bounded by positions"} |
| tokenizer | {text_model.tokenizer.kind}, {text_model.tokenizer.vocab_size:,} ids |
| proof | {proof} |

```bash
curl -d '{{"instances": ["Once upon a time"]}}' \\
  http://127.0.0.1:8501/v1/models/{name}:predict
```

With every knob, by the signature `generate`:

```bash
curl -d '{{"signature_name": "generate", "instances": [{{"prompt": "Once", "stop": [""],
  "max_new_tokens": {new_tokens}, "temperature": 0.8, "top_k": 0, "top_p": 0.95,
  "min_p": 0.0, "repetition_penalty": 1.0, "seed": 7}}]}}' \\
  http://127.0.0.1:8501/v1/models/{name}:predict
```

Data, intended use and limits: to be written by whoever trained it.
"""
