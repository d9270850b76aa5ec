"""Compares a chat model's token ids with Transformers' reading the same GGUF file.

In two environments, since the project's holds no PyTorch: `peer` writes what
`apply_chat_template` makes of 2,000 conversations, `compare` prints how many become the
same ids here, and shows those that do not. The messages are stretches of Moby-Dick and
of Tang poems out of testdata/.

Example: python benchmarks/parity_chat.py peer --source=SmolLM2.gguf --file=chat.json
Then: python benchmarks/parity_chat.py compare --model=models/smol --file=chat.json
"""

import json
import pathlib
import random
import sys

ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

NUMBER = 2_000
SHOWN = 5  # Of the conversations that differ.


def conversations():
    """Returns lists of messages: some with a system's, of one to five turns."""
    names = ("moby_dick.txt", "moby_dick.txt", "tang_poems.txt")
    texts = [(ROOT / "testdata" / name).read_text("utf-8") for name in names]
    chance = random.Random(0)

    def message(role):
        text = chance.choice(texts)
        start = chance.randrange(len(text) - 200)
        piece = text[start : start + chance.randrange(200)]
        # A reply is encoded by itself, as a model writes it: a template that is printed
        # first would join white space at its head to what stands before it.
        return {
            "role": role,
            "content": piece.lstrip() if role == "assistant" else piece,
        }

    found = []
    for _ in range(NUMBER):
        talk = [message("system")] if chance.random() < 0.3 else []
        for _ in range(chance.randrange(3)):
            talk += [message("user"), message("assistant")]
        found.append([*talk, message("user")])
    return found


def peer(given):
    """Writes the ids of Transformers' template."""
    import transformers

    source = pathlib.Path(given.source)
    tokenizer = transformers.AutoTokenizer.from_pretrained(
        source.parent, gguf_file=source.name
    )
    options = {"add_generation_prompt": True, "tokenize": True, "return_dict": False}
    rows = [
        list(tokenizer.apply_chat_template(talk, **options)) for talk in conversations()
    ]
    pathlib.Path(given.file).write_text(json.dumps(rows), "utf-8")


def compare(given):
    """Prints how many conversations become the same ids."""
    from keras_llm import models, tokenizers

    encoder = tokenizers.ChatEncoder(models.load_tokenizer(given.model))
    known = json.loads(pathlib.Path(given.file).read_text("utf-8"))
    differing = []
    for i, (talk, expected) in enumerate(zip(conversations(), known, strict=True)):
        roles, contents = ([[m[name] for m in talk]] for name in ("role", "content"))
        ids = encoder.prompts(roles, contents).to_list()[0]
        if ids != expected:
            pairs = zip(ids, expected, strict=False)
            place = next((j for j, (a, b) in enumerate(pairs) if a != b), len(ids))
            near = slice(max(0, place - 2), place + 3)
            both = {"here": ids[near], "there": expected[near]}
            differing.append({"conversation": i, "place": place, **both})
    same = len(known) - len(differing)
    print(json.dumps({"conversations": len(known), "same_ids": same}))
    for each in differing[:SHOWN]:
        print(json.dumps(each))


if __name__ == "__main__":
    from benchmarks.halves import run_half

    run_half(__doc__, peer, compare)
